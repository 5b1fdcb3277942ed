"""What an engine is asked: a user's history, or a query made of items, media and a history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmrec.errors import ConfigError

__all__ = ["History", "Query"]


@dataclass(frozen=True, kw_only=True)
class History:
    """What a user took, and what the user dislikes.

    Attributes:
        items: item ids, oldest first.
        times: when each was taken, seconds since 1970; for models that read times.
        at: when the next item is asked for, seconds since 1970; None: now. For models that are told.
        disliked: item ids, in any order: the user's vector is turned away from them, and they are never an answer.

    Raises: ConfigError if there are not as many times as items, or ids are one string.
    """

    items: Sequence[str]
    times: Sequence[int] | None = None
    at: int | None = None
    disliked: Sequence[str] = ()

    def __post_init__(self) -> None:
        _refuse_string("items", self.items)
        _refuse_string("disliked", self.disliked)
        if self.times is not None and len(self.times) != len(self.items):
            raise ConfigError(f"{len(self.times)} times were given for {len(self.items)} items; give one for each")


@dataclass(frozen=True, kw_only=True)
class Query:
    """What to search near: items of the export, a new item, a user, or any mix of them.

    Attributes:
        items: ids of items of the export, in any order; one given twice counts once.
        record: raw values of a new item by modality: text as a string; image, audio, video as bytes or a path.
        history: what a user took.

    Raises: ConfigError if nothing is given, or ids are one string.
    """

    items: Sequence[str] = ()
    record: Mapping[str, Any] = field(default_factory=dict)
    history: History | None = None

    def __post_init__(self) -> None:
        _refuse_string("items", self.items)
        if not self.items and not self.record and self.history is None:
            raise ConfigError("the query is empty; give item ids, a text, media of a new item, a history, or several")


def _refuse_string(name: str, ids: Sequence[str]) -> None:
    if isinstance(ids, str):
        raise ConfigError(f"{name} is the string {ids!r}; give a list of item ids")
