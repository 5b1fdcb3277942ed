"""Splits by name and options on one line: ``global_time:date=2018-05-01,targets=last,seen=kept``.

Options of every split: ``seen`` (filtered: items of the history are no candidates; kept: they are) and ``candidates``
(all: the whole catalogue; as_of_query: items that somebody had taken by the time of the query). Options of one:

* ``global_time``: ``quantile`` (of all timestamps) or ``date`` (test from that day, UTC), and ``targets`` (successive:
  every event after the cut, with all earlier ones known; next: each user's first after the cut; last: the last one).
* ``user_folds``: ``folds``, and ``fold``, that of the test users; those of the next fold validate, the others train.
* ``sessions``: ``gap_min``, minutes without an event that end a session.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from mmrec.errors import ConfigError, unknown_name

__all__ = ["SPLITS", "SplitSpec", "parse_split"]

# Each split and the options that it has beside those of all.
SPLITS: dict[str, tuple[str, ...]] = {
    "auto": (),
    "leave_one_out": (),
    "global_time": ("quantile", "date", "targets"),
    "user_folds": ("folds", "fold"),
    "sessions": ("gap_min",),
    "provided": (),
}
_OF_ALL = ("seen", "candidates")
_CHOICES = {
    "seen": ("filtered", "kept"),
    "candidates": ("all", "as_of_query"),
    "targets": ("successive", "next", "last"),
}


@dataclass(frozen=True, kw_only=True)
class SplitSpec:
    """What a split's line says; see the module for the meaning of each."""

    name: str
    seen: Literal["filtered", "kept"] = "filtered"
    candidates: Literal["all", "as_of_query"] = "all"
    quantile: float | None = None
    test_from: int | None = None
    targets: Literal["successive", "next", "last"] = "successive"
    folds: int = 5
    fold: int = 0
    gap_min: float = 30.0


def parse_split(text: str) -> SplitSpec:
    """Read a split's line.

    Raises: ConfigError if the name, an option or its value is not known.
    """
    name, _, rest = text.partition(":")
    if name not in SPLITS:
        raise ConfigError(unknown_name("split", name, SPLITS))
    spec, given = SplitSpec(name=name), set()
    for option in rest.split(",") if rest else []:
        key, equals, value = option.partition("=")
        known = (*SPLITS[name], *_OF_ALL)
        if key not in known or not equals:
            raise ConfigError(f"{unknown_name(f'option of split {name}', key, known)}; write {name}:{known[0]}=VALUE")
        if key in given:
            raise ConfigError(f"split {text!r} gives {key} twice; give it once")
        given.add(key)
        spec = replace(spec, **_value(key, value))
    if {"quantile", "date"} <= given:
        raise ConfigError(f"split {text!r} cuts by quantile and by date; give one of them")
    if not 0 <= spec.fold < spec.folds or spec.folds < 3:
        raise ConfigError(f"fold {spec.fold} of {spec.folds}: there are at least 3, and the first is fold 0")
    return spec


def _value(key: str, text: str) -> dict[str, Any]:
    if key in _CHOICES:
        if text not in _CHOICES[key]:
            raise ConfigError(unknown_name(key, text, _CHOICES[key]))
        return {key: text}
    try:
        if key == "date":
            return {"test_from": int(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp())}
        return {key: int(text) if key in ("folds", "fold") else float(text)}
    except ValueError as error:
        wanted = "a day such as 2018-05-01" if key == "date" else "a number"
        raise ConfigError(f"{key}={text} of a split is not {wanted}") from error
