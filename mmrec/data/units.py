"""One shard's worth of items: read, checked, normalised, written. The unit of work of a build, on any machine.

A unit is a pure function of its items and the settings: the same bytes whoever does it, however often. What it writes
appears under its name at once.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from mmrec.data.manifest import MEDIA_FIELDS, MEDIA_MODALITIES
from mmrec.data.shards import Location, item_key
from mmrec.errors import MediaError
from mmrec.media.info import MAX_TEXT_BYTES, MediaInfo
from mmrec.media.isolated import IsolatedDecoder
from mmrec.media.normalise import Normalisation, probe_and_normalise
from mmrec.media.source import MediaSource

__all__ = ["Fault", "Item", "Unit", "UnitResult", "UnitSettings", "build_unit"]

Fault = dict[str, str]
"""A row of errors.parquet."""

# A medium that takes longer, or more, is given up where decoders run on their own.
ISOLATION = 60.0, 2 << 30  # seconds, bytes
LATE_IMPORTS = ("av", "scipy.signal", "soundfile", "torchvision.io")


@dataclass(frozen=True)
class Item:
    """An item on its way in.

    Attributes:
        item_id: the user's own.
        text: all its text columns; empty for none.
        paths: of its media in the source, by modality; those whose bytes another item brings are left out.
    """

    item_id: str
    text: str
    paths: dict[str, str]


@dataclass(frozen=True)
class Unit:
    """Consecutive items that make one shard.

    Attributes:
        number: 0 for the first one.
        first_key: key of the first item; the others follow.
    """

    number: int
    first_key: int
    items: list[Item]


@dataclass(frozen=True, kw_only=True)
class UnitSettings:
    """What is the same for all units of a build.

    Attributes:
        root: folder or URL that media paths start from.
        folder: where shards are written.
        rules: what is done to media.
        num_threads: media read and checked at once.
        isolated: decode each medium in a process of its own, whose crash costs that medium alone.
    """

    root: str
    folder: Path
    rules: Normalisation
    num_threads: int
    isolated: bool = False


@dataclass(frozen=True, kw_only=True)
class UnitResult:
    """What became of a unit.

    Attributes:
        shard: name of its tar in the folder, None if nothing of it could be used.
        bytes, sha256: of the tar.
        num_stored: items with something in the tar.
        facts: by modality and column of items.parquet (but the shard), one value an item.
        faults: rows of errors.parquet.
    """

    number: int
    shard: str | None
    bytes: int
    sha256: str
    num_stored: int
    facts: dict[str, dict[str, list[Any]]]
    faults: list[Fault]


def build_unit(unit: Unit, settings: UnitSettings, progress: Callable[[int], None] = lambda done: None) -> UnitResult:
    """Write the unit's shard and tell what is in it.

    Args:
        progress: called with 1 after each item.

    Raises: OSError if the shard cannot be written. A bad medium is a fault, never an exception.
    """
    facts = {modality: {name: [] for name in _columns(modality)} for modality in MEDIA_MODALITIES}
    faults: list[Fault] = []
    name = f"unit-{unit.number:05d}.tar"
    scratch = settings.folder / f".{name}.{os.getpid()}"
    num_stored = 0
    with _Tar(scratch, unit.number) as tar:
        for number, (media, found) in enumerate(_read_ahead(unit.items, settings)):
            faults += found
            failed = {fault["modality"] for fault in found}
            num_stored += bool(media)
            for modality in MEDIA_MODALITIES:
                place = None
                if modality in media:
                    info, data = media[modality]
                    place = tar.add(f"{item_key(unit.first_key + number)}.{modality}.{info.ext}", data)
                _note(facts[modality], place, media.get(modality), "error" if modality in failed else "missing")
            progress(1)
    sha256, size = tar.sha256(), scratch.stat().st_size
    shard = settings.folder / name if num_stored else None
    if shard is None:
        scratch.unlink()
    else:
        scratch.replace(shard)
    return UnitResult(
        number=unit.number,
        shard=None if shard is None else name,
        bytes=size,
        sha256=sha256,
        num_stored=num_stored,
        facts=facts,
        faults=faults,
    )


Media = dict[str, tuple[MediaInfo, bytes]]


def _read_ahead(items: list[Item], settings: UnitSettings) -> Iterator[tuple[Media, list[Fault]]]:
    """Usable media of each item, in order, and a fault for each oddity; threads run a few items ahead."""
    source = MediaSource(settings.root)
    isolated: AbstractContextManager = IsolatedDecoder(*ISOLATION, imports=LATE_IMPORTS) if settings.isolated else (
        nullcontext(lambda function, *arguments: function(*arguments))
    )  # fmt: skip
    with isolated as run, ThreadPoolExecutor(settings.num_threads) as pool:
        pending = []
        for item in items:
            pending.append(pool.submit(load_item, item, source, settings.rules, run))
            if len(pending) > 4 * settings.num_threads:
                yield pending.pop(0).result()
        while pending:
            yield pending.pop(0).result()


def load_item(
    item: Item, source: MediaSource, rules: Normalisation, run: Callable[..., Any]
) -> tuple[Media, list[Fault]]:
    """Read, check and normalise what an item has; never raises for a bad file."""
    media: Media = {}
    faults: list[Fault] = []
    text = item.text.encode(errors="replace")
    if len(text) > MAX_TEXT_BYTES:
        message = f"{len(text):,} bytes of text are too many, at most {MAX_TEXT_BYTES:,}"
        faults.append(_fault(item, "text", "MediaError", message))
    elif text:
        media["text"] = (MediaInfo(ext="txt"), text)
    for modality, path in item.paths.items():
        try:
            info, data = run(probe_and_normalise, modality, source.read(path), path, rules)
        except MediaError as error:
            faults.append(_fault(item, modality, type(error).__name__, f"{path}: {error}"))
            continue
        media[modality] = (info, data)
        if info.note:
            kind = "PartialMedia" if info.status == "partial" else "MislabelledMedia"
            faults.append(_fault(item, modality, kind, f"{path}: {info.note}"))
    return media, faults


def _fault(item: Item, modality: str, error: str, message: str) -> Fault:
    return {"item_id": item.item_id, "modality": modality, "stage": "probe", "error": error, "message": message}


class _Tar:
    """A tar whose bytes depend on its members alone."""

    def __init__(self, path: Path, shard: int) -> None:
        self._path, self._shard = path, shard
        self._file = path.open("wb")
        self._tar = tarfile.TarFile(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)

    def add(self, name: str, data: bytes) -> Location:
        info = tarfile.TarInfo(name)  # owner 0 and mtime 0 by default
        info.size = len(data)
        offset = self._tar.offset + tarfile.BLOCKSIZE
        self._tar.addfile(info, io.BytesIO(data))
        return Location(self._shard, offset, len(data), xxhash.xxh3_64_intdigest(data))

    def sha256(self) -> str:
        with self._path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def __enter__(self) -> _Tar:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self._tar.close()
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()
        if kind is not None:
            self._path.unlink()


def _columns(modality: str) -> tuple[str, ...]:
    return ("offset", "size", "xxh3", "ext", "status", *MEDIA_FIELDS[modality])


def _note(
    facts: dict[str, list[Any]], place: Location | None, medium: tuple[MediaInfo, bytes] | None, state: str
) -> None:
    info = None if medium is None else medium[0]
    for name, column in facts.items():
        if name == "status":
            column.append(state if info is None else info.status)
        elif name in ("offset", "size", "xxh3"):
            column.append(None if place is None else getattr(place, name))
        else:
            column.append(None if info is None else getattr(info, name))
