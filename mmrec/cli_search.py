"""The commands that ask an export: search, recommend."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from mmrec.errors import ConfigError, DataError

if TYPE_CHECKING:
    from mmrec.index import Hit

__all__ = ["recommend", "search"]

Positional = tyro.conf.Positional


@contextlib.contextmanager
def _short_process() -> Iterator[None]:
    """No garbage collection in a process that ends with its answer.

    Collections while torch is imported and when the interpreter ends are a third of such a process's time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@_short_process()
def search(
    export: Positional[Path],
    items: tuple[str, ...] = (),
    history: tuple[str, ...] = (),
    text: str | None = None,
    image: Path | None = None,
    audio: Path | None = None,
    video: Path | None = None,
    k: int = 10,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Items of an export nearest to items, a history, and a text and media files taken together as one new item.

    Of several parts the direction of the sum of their unit vectors is searched near.

    Args:
        export: folder made by `mmrec export`.
        items: ids of items of the export, in any order.
        history: ids of items that a user took, oldest first; the user's vector is a part of the query.
        text: any text, where the model encodes text.
        image: picture file.
        audio: sound file.
        video: clip file.
        k: number of answers.
        as_json: print JSON instead of a table.
    """
    from mmrec.engine import Engine, History, Query

    record: dict[str, Any] = {} if text is None else {"text": text}
    record |= {name: path for name, path in (("image", image), ("audio", audio), ("video", video)) if path is not None}
    query = Query(items=items, record=record, history=History(items=history) if history else None)
    _print_hits(Engine.open(export).search(query, k), as_json)


@_short_process()
def recommend(
    export: Positional[Path],
    items: tuple[str, ...] = (),
    times: tuple[int, ...] = (),
    user: str | None = None,
    data: Path | None = None,
    at: int | None = None,
    disliked: tuple[str, ...] = (),
    k: int = 10,
    blend: bool = True,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Items for a history: of the ids given, oldest first, or of a user of the dataset. What was taken is left out.

    Args:
        export: folder made by `mmrec export`.
        items: item ids, oldest first.
        times: when each of them was taken, seconds since 1970; for models that read times (HSTU).
        user: user id in the dataset; needs --data.
        data: dataset folder with the user's history.
        at: when the next item is asked for, seconds since 1970; for models that are told. The default is now.
        disliked: item ids that the user dislikes: answers turn away from them.
        k: number of answers.
        blend: add the exported counts to the scores, where the export has them (`mmrec export --blend`).
        as_json: print JSON instead of a table.
    """
    from mmrec.engine import Engine, History

    engine = Engine.open(export)
    if bool(items) == (user is not None):
        raise ConfigError("give either --items ID [ID ...] or --user ID with --data DATASET")
    taken, when = (items, times or None) if user is None else _history_of(user, data)
    history = History(items=taken, times=when, at=at, disliked=disliked)
    if engine.reads_times and when is None:
        raise ConfigError(
            "this model reads when items were taken; give --times, one for each item (seconds since 1970)"
        )
    _print_hits(engine.recommend(history, k, blend=blend), as_json)


def _history_of(user: str, data: Path | None) -> tuple[tuple[str, ...], tuple[int, ...] | None]:
    """Item ids of a user of the dataset, oldest first, and their times, if events have any."""
    import numpy as np

    from mmrec.data.dataset import Dataset

    if data is None:
        raise ConfigError("--user needs --data DATASET, which has the user's history")
    dataset = Dataset.open(data)
    row = np.flatnonzero(dataset.sequences.user_ids == user)
    if len(row) == 0:
        known = dataset.sequences.user_ids[:5].tolist()
        raise DataError(f"unknown user {user!r} in {data}; its users are like {', '.join(known)}")
    taken = dataset.sequences.take(row)
    times = None if taken.timestamps is None else tuple(taken.timestamps.tolist())
    return tuple(dataset.item_ids[taken.item_idx].tolist()), times


def _print_hits(hits: list[Hit], as_json: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from mmrec.index import hits_to_json

    if as_json:
        print(hits_to_json(hits))
        return
    table = Table("rank", "item_id", "title", "score")
    for hit in hits:
        title = hit.title.splitlines()[0]
        table.add_row(str(hit.rank), hit.item_id, title if len(title) <= 60 else title[:59] + "…", f"{hit.score:.3f}")
    Console().print(table)
