"""The commands that ask an export: search, recommend."""

from __future__ import annotations

import contextlib
import gc
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from mmrec.errors import ConfigError, DataError

if TYPE_CHECKING:
    from mmrec.engine import Audience, History, Reason
    from mmrec.index import Hit

    Why = tuple[tuple[Reason, ...], dict[str, float]]  # of a hit: parts of the question, shares of its modalities

__all__ = ["recommend", "search"]

Positional = tyro.conf.Positional
Repeated = tyro.conf.UseAppendAction

# Parts of the question that a table names for each hit.
_SHOWN_REASONS = 2


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
    text: str | None = None,
    image: Path | None = None,
    audio: Path | None = None,
    video: Path | None = None,
    history: tuple[str, ...] = (),
    times: tuple[int, ...] = (),
    disliked: tuple[str, ...] = (),
    where: Annotated[tuple[str, ...], Repeated] = (),
    k: int = 10,
    explain: bool = False,
    audience: bool = False,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Items of an export nearest to items, a history, and a text and media files taken together as one new item.

    Of several parts the direction of the sum of their unit vectors is searched near.

    Args:
        export: folder made by `mmrec export`.
        items: ids of items of the export, in any order.
        text: any text, where the model encodes text.
        image: picture file.
        audio: sound file.
        video: clip file.
        history: ids of items that a user took, oldest first; the user's vector is a part of the query.
        times: when each of the history was taken, seconds since 1970; for models that read times (HSTU).
        disliked: item ids that the user of the history dislikes.
        where: only items with one of these values of an attribute: COLUMN=VALUE or COLUMN=VALUE,VALUE; repeatable.
        k: number of answers.
        explain: what each score owes to each part of the query.
        audience: of a new item, the share of users in whose first K it would be, and the nearest users; needs an
            export with --users.
        as_json: print JSON instead of a table.
    """
    from mmrec.engine import Engine, History, Query

    record: dict[str, Any] = {} if text is None else {"text": text}
    record |= {name: path for name, path in (("image", image), ("audio", audio), ("video", video)) if path is not None}
    if not history and (times or disliked):
        raise ConfigError("--times and --disliked belong to a user; give --history with the items that were taken")
    if audience and (not record or items or history):
        raise ConfigError("--audience is asked for a new item; give --text and media files, and no items of the export")
    taken = History(items=history, times=times or None, disliked=disliked) if history else None
    query = Query(items=items, record=record, history=taken)
    engine = Engine.open(export)
    if taken is not None:
        _ask_for_times(engine.reads_times, taken)
    hits = engine.search(query, k, where=_filters(where))
    why = list(zip(engine.explain(query, hits), engine.shares(hits), strict=True)) if explain else None
    if not audience:
        _print_hits(hits, why, as_json)
        return
    users = engine.audience(query, k)
    if as_json:
        vector = engine.encode_queries([query])[0].tolist()
        _print_json({"vector": vector, "hits": _json_hits(hits, why), "audience": asdict(users)})
        return
    _print_hits(hits, why, as_json)
    _print_audience(users)


@_short_process()
def recommend(
    export: Positional[Path],
    items: tuple[str, ...] = (),
    times: tuple[int, ...] = (),
    user: str | None = None,
    data: Path | None = None,
    at: int | None = None,
    disliked: tuple[str, ...] = (),
    where: Annotated[tuple[str, ...], Repeated] = (),
    k: int = 10,
    blend: bool = True,
    rerank: str | None = None,
    users_of: Path | None = None,
    explain: bool = False,
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
        where: only items with one of these values of an attribute: COLUMN=VALUE or COLUMN=VALUE,VALUE; repeatable.
        k: number of answers.
        blend: add the exported counts to the scores, where the export has them (`mmrec export --blend`).
        rerank: mmr:0.8 (more varied the smaller the number), cap:COLUMN=2 (at most 2 of one value) or fair:COLUMN
            (each value gets its share of the catalogue).
        users_of: run or checkpoint folder of a newer model that reads the history in place of the export's own; it must
            have been trained with --compatible-with this export.
        explain: what each score owes to each item of the history.
        as_json: print JSON instead of a table.
    """
    from mmrec.engine import Engine, History

    engine = Engine.open(export, users_of=users_of)
    if bool(items) == (user is not None):
        raise ConfigError("give either --items ID [ID ...] or --user ID with --data DATASET")
    taken, when = (items, times or None) if user is None else _history_of(user, data)
    history = History(items=taken, times=when, at=at, disliked=disliked)
    _ask_for_times(engine.reads_times, history)
    hits = engine.recommend(history, k, blend=blend, where=_filters(where), rerank=rerank)
    why = list(zip(engine.explain(history, hits, blend=blend), engine.shares(hits), strict=True)) if explain else None
    _print_hits(hits, why, as_json)


def _ask_for_times(reads_times: bool, history: History) -> None:
    if reads_times and history.times is None:
        raise ConfigError(
            "this model reads when items were taken; give --times, one for each item (seconds since 1970)"
        )


def _filters(where: Sequence[str]) -> dict[str, list[str]] | None:
    """By column, the values that ``COLUMN=VALUE,VALUE`` allows."""
    found: dict[str, list[str]] = {}
    for text in where:
        column, equals, values = text.partition("=")
        if not column or not equals or not all(values.split(",")):
            raise ConfigError(f"--where is {text!r}; give COLUMN=VALUE, or COLUMN=VALUE,VALUE for any of them")
        if column in found:
            raise ConfigError(f"--where names {column!r} twice; give all values at once: {column}=VALUE,VALUE")
        found[column] = values.split(",")
    return found or None


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


def _print_hits(hits: list[Hit], why: list[Why] | None, as_json: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    if as_json:
        _print_json(_json_hits(hits, why))
        return
    if not hits:
        print("no item is left: all are in the question, or --where allows none")
        return
    table = Table("rank", "item_id", "title", "score")
    if why is not None:
        table.caption, table.caption_justify = (
            "made of: shares of the weights that fusion gives\n"
            "because of: what the score loses without that part of the question",
            "left",
        )
        table.add_column("made of")
        table.add_column("because of")
    for n, hit in enumerate(hits):
        row = [str(hit.rank), hit.item_id, _short(hit.title, 60), f"{hit.score:.3f}"]
        if why is not None:
            reasons, shares = why[n]
            made_of = [f"{name} {share:.0%}" for name, share in shares.items()] or hit.modalities
            row += [", ".join(made_of), ", ".join(map(_short_reason, reasons[:_SHOWN_REASONS]))]
        table.add_row(*row)
    Console().print(table)


def _print_audience(audience: Audience) -> None:
    from rich.console import Console
    from rich.table import Table

    counted = f"{audience.counted:,} users"
    if audience.counted < audience.num_users:
        counted += f" drawn of {audience.num_users:,}; 95 % interval {audience.low:.2%} to {audience.high:.2%}"
    print(f"audience: in the first {audience.k} of {audience.share:.2%} of users ({counted})")
    table = Table("rank", "user_id", "score", title="nearest users", title_justify="left")
    for user in audience.nearest:
        table.add_row(str(user.rank), user.user_id, f"{user.score:.3f}")
    Console().print(table)


def _json_hits(hits: list[Hit], why: list[Why] | None) -> list[dict[str, Any]]:
    found = [asdict(hit) for hit in hits]
    for hit, (reasons, shares) in zip(found, why or (), strict=False):
        hit["made_of"], hit["why"] = shares, [asdict(reason) for reason in reasons]
    return found


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False))


def _short_reason(reason: Reason) -> str:
    return f"{_short(reason.title or reason.part, 30)} {reason.drop:+.3f}"


def _short(text: str, most: int) -> str:
    line = text.splitlines()[0] if text else ""
    return line if len(line) <= most else line[: most - 1] + "…"
