"""Which items an answer may have: filters by attribute columns.

Legend: V items of the export.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from mmrec.errors import ConfigError, unknown_name
from mmrec.export_folder import ExportFolder

__all__ = ["Filters", "NormalForm", "Where", "normal_form"]

Where = Mapping[str, Sequence[str]]
"""By attribute column, the values that an answer may have; an item must pass in all columns."""

NormalForm = tuple[tuple[str, tuple[str, ...]], ...]
"""A filter that can be a key."""

_MOST_LISTED = 20  # values that an error names


def normal_form(where: Where) -> NormalForm:
    """Columns in order, values as strings.

    Raises:
        ConfigError: if a column has no allowed values, or one string in place of a list.
    """
    for name, values in where.items():
        if isinstance(values, str):
            raise ConfigError(f"the filter {name} is the string {values!r}; give a list of values")
        if len(values) == 0:
            raise ConfigError(f"the filter {name} has no values; give at least one")
    return tuple((name, tuple(map(str, where[name]))) for name in sorted(where))


class Filters:
    """Filters by the attribute columns of an export.

    Args:
        export: the opened folder.
    """

    def __init__(self, export: ExportFolder) -> None:
        self._export = export

    def mask(self, where: NormalForm) -> np.ndarray:
        """Which items have an allowed value in every column of ``where``; an empty value is none of them. bool (V,)

        Raises:
            ConfigError: if a column or a value is unknown; the message names the known ones.
        """
        passing = np.ones(self._export.num_items, dtype=bool)
        for name, values in where:
            if name not in self.names:
                raise ConfigError(unknown_name("attribute", name, self.names))
            codes, known = self._export.coded(name)
            allowed = np.zeros(len(known) + 1, dtype=bool)  # the last is that of empty values
            allowed[_places(name, values, known)] = True
            passing &= allowed[codes]
        return passing

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """Columns that can be filtered by."""
        return tuple(self._export.attributes.column_names)


def _places(name: str, values: Sequence[str], known: pa.Array) -> np.ndarray:
    """Places of ``values`` among the known ones."""
    places = [_place(value, known) for value in values]
    for value, place in zip(values, places, strict=True):
        if place < 0:
            raise ConfigError(_unknown_value(name, value, known))
    return np.array(places)


def _place(text: str, known: pa.Array) -> int:
    try:
        return known.index(pa.scalar(text).cast(known.type)).as_py()
    except pa.ArrowInvalid:  # not of the column's type, such as a word for a number
        return -1


def _unknown_value(name: str, text: str, known: pa.Array) -> str:
    names = [str(value) for value in known.to_pylist()]
    nearest = difflib.get_close_matches(text, names[:10_000], n=1)
    hint = f"; perhaps you meant {nearest[0]!r}" if nearest else ""
    listed = ", ".join(sorted(names)[:_MOST_LISTED])
    more = f" and {len(names) - _MOST_LISTED:,} more" if len(names) > _MOST_LISTED else ""
    return f"unknown {name} {text!r}{hint}; known: {listed or 'none'}{more}"
