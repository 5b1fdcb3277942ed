"""The media of items on their way in: read from the user's files, checked, or refused with a reason."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from mmrec.errors import MediaError
from mmrec.media.info import MAX_FILE_BYTES, MediaInfo
from mmrec.media.probe import probe

__all__ = ["ItemMedia", "load_item", "load_items"]


@dataclass(kw_only=True)
class ItemMedia:
    """Usable media of one item (modality -> facts, bytes), and one row of errors.parquet for each oddity."""

    media: dict[str, tuple[MediaInfo, bytes]] = field(default_factory=dict)
    faults: list[dict[str, str]] = field(default_factory=list)


def load_items(
    items: pl.DataFrame, root: Path, text_columns: list[str], media_columns: dict[str, str], num_workers: int
) -> Iterator[ItemMedia]:
    """Media of each row of ``items``, in order, read and checked by threads that run at most a few items ahead."""
    wanted = dict.fromkeys(["item_id", *text_columns, *media_columns.values()])
    ahead: collections.deque[Future[ItemMedia]] = collections.deque()
    with ThreadPoolExecutor(num_workers) as pool, _progress() as progress:
        task = progress.add_task("media", total=items.height)
        for row in items.select(wanted.keys()).iter_rows(named=True):
            ahead.append(pool.submit(load_item, row, root, text_columns, media_columns))
            if len(ahead) > 4 * num_workers:
                yield ahead.popleft().result()
                progress.advance(task)
        while ahead:
            yield ahead.popleft().result()
            progress.advance(task)


def _progress() -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed or 0.0:.0f} items/s", style="dim")

    layout = (TextColumn("checking media"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    return Progress(*layout, console=Console(stderr=True), transient=True)


def load_item(row: dict[str, Any], root: Path, text_columns: list[str], media_columns: dict[str, str]) -> ItemMedia:
    """Read and check what the item's row names; never raises for a bad file."""
    item = ItemMedia()
    text = "\n".join(row[name] for name in text_columns if row[name] is not None)
    if text:
        item.media["text"] = (MediaInfo(ext="txt"), text.encode())
    for modality, column in media_columns.items():
        if row[column] is None:
            continue
        try:
            data = _read(root / row[column])
            info = probe(modality, data, row[column])
        except MediaError as error:
            item.faults.append(_fault(modality, "probe", type(error).__name__, f"{row[column]}: {error}"))
            continue
        item.media[modality] = (info, data)
        if info.note:
            kind = "PartialMedia" if info.status == "partial" else "MislabelledMedia"
            item.faults.append(_fault(modality, "probe", kind, f"{row[column]}: {info.note}"))
    return item


def _read(path: Path) -> bytes:
    # A pipe or a device would block for ever; only regular files are opened.
    if not path.is_file():
        raise MediaError("no such file" if not path.exists() else "not a regular file")
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise MediaError(f"{size:,} bytes is too large, at most {MAX_FILE_BYTES:,} bytes")
    try:
        return path.read_bytes()
    except OSError as error:
        raise MediaError(f"cannot be read: {error.strerror}") from error


def _fault(modality: str, stage: str, error: str, message: str) -> dict[str, str]:
    return {"modality": modality, "stage": stage, "error": error, "message": message}
