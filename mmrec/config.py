"""Configuration dataclasses to and from plain JSON, strict about what they do not know.

A field whose type is a union of dataclasses is stored with ``"kind"``, the name of the class. Unknown keys and kinds
are errors with a suggestion: a silently ignored setting is a wrong result.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from mmrec.errors import ConfigError, unknown_name

__all__ = ["from_dict", "to_dict"]

T = TypeVar("T")


def to_dict(config: Any) -> Any:
    """Return ``config`` as JSON-ready values; every dataclass carries its class name under ``"kind"``."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        fields = {field.name: to_dict(getattr(config, field.name)) for field in dataclasses.fields(config)}
        return {"kind": type(config).__name__, **fields}
    if isinstance(config, dict):
        return {str(key): to_dict(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [to_dict(value) for value in config]
    return str(config) if isinstance(config, Path) else config


def from_dict(expected: type[T], values: Any, where: str = "config") -> T:
    """Rebuild an ``expected`` from what :func:`to_dict` returned.

    Raises:
        ConfigError: on an unknown key or kind, or a value of a wrong type; the message names the place.
    """
    return _convert(expected, values, where)


def _convert(expected: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(expected)
    arguments = typing.get_args(expected)
    if origin is typing.Annotated:
        return _convert(arguments[0], value, where)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(arguments, value, where)
    if dataclasses.is_dataclass(expected):
        return _convert_dataclass(typing.cast(type, expected), value, where)
    if origin is dict:
        return {key: _convert(arguments[1], entry, f"{where}.{key}") for key, entry in value.items()}
    if origin is tuple:
        return tuple(_convert(arguments[0], entry, f"{where}[{n}]") for n, entry in enumerate(value))
    if origin is list:
        return [_convert(arguments[0], entry, f"{where}[{n}]") for n, entry in enumerate(value)]
    if origin is typing.Literal:
        if value not in arguments:
            raise ConfigError(f"{where}: {unknown_name('value', str(value), map(str, arguments))}")
        return value
    if expected is Path:
        return Path(value)
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(expected, type) and not isinstance(value, expected):
        raise ConfigError(f"{where} is {value!r}; it must be of type {expected.__name__}")
    return value


def _convert_union(choices: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in choices:
        return None
    classes = {typing.cast(type, choice).__name__: choice for choice in choices if dataclasses.is_dataclass(choice)}
    if isinstance(value, dict) and classes:
        kind = str(value.get("kind"))
        if kind not in classes:
            raise ConfigError(f"{where}.kind: {unknown_name('kind', kind, classes)}")
        return _convert_dataclass(typing.cast(type, classes[kind]), value, where)
    rest = [choice for choice in choices if choice is not type(None) and choice not in classes.values()]
    for choice in rest:
        try:
            return _convert(choice, value, where)
        except ConfigError:
            continue
    raise ConfigError(f"{where} is {value!r}; it must be one of {', '.join(str(choice) for choice in choices)}")


def _convert_dataclass(cls: type, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise ConfigError(f"{where} is {values!r}; it must be an object with the fields of {cls.__name__}")
    hints = typing.get_type_hints(cls, include_extras=True)
    names = {field.name for field in dataclasses.fields(cls)}
    given = {key: value for key, value in values.items() if key != "kind"}
    for key in given:
        if key not in names:
            raise ConfigError(f"{where}: {unknown_name('setting', key, names)}")
    return cls(**{key: _convert(hints[key], value, f"{where}.{key}") for key, value in given.items()})
