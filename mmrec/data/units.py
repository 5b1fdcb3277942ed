"""The unit of work of a build, on any machine: items read, checked, normalised, written into shards of their own.

A unit is a pure function of its items and the settings: the same bytes whoever does it, however often. What it writes
appears under its name at once.
"""

from __future__ import annotations

import importlib.metadata
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from mmrec.data.manifest import MEDIA_FIELDS, MEDIA_MODALITIES
from mmrec.data.shard_writer import Shard, ShardWriter
from mmrec.data.shards import Location, item_key
from mmrec.errors import MediaError
from mmrec.media.info import MediaInfo
from mmrec.media.isolated import IsolatedDecoder
from mmrec.media.normalise import Normalisation, probe_and_normalise
from mmrec.media.source import MediaSource

__all__ = ["Item", "Unit", "UnitResult", "UnitSettings", "build_unit", "package_versions"]

# What a decoder may allocate where it runs in a process of its own.
_ISOLATED_BYTES = 2 << 30
_LATE_IMPORTS = ("av", "scipy.signal", "soundfile", "torchvision.io")
# Files that threads have read, or read, ahead of the one that is written: so many bytes, or one item.
_AHEAD_BYTES = 256 << 20


def package_versions() -> dict[str, str]:
    """Of whatever writes the bytes of a medium: with another version of one of these a unit is another one."""
    names = ("mmrec", "av", "numpy", "pillow", "scipy", "soundfile", "torch", "torchvision")
    return {name: importlib.metadata.version(name) for name in names}


@dataclass(frozen=True)
class Item:
    """An item on its way in.

    Attributes:
        item_id: the user's own.
        text: all its text columns; empty for none.
        paths: of its media in the source, by modality; those whose bytes another item brings are left out.
        num_bytes: of the files and the text.
    """

    item_id: str
    text: str
    paths: dict[str, str]
    num_bytes: int


@dataclass(frozen=True)
class Unit:
    """Consecutive items that go through one process.

    Attributes:
        key: of all that decides the bytes.
        first_key: key of the first item; the others follow.
    """

    key: str
    first_key: int
    items: list[Item]


@dataclass(frozen=True, kw_only=True)
class UnitSettings:
    """What is the same for all units of a build.

    Attributes:
        root: folder or URL that media paths start from.
        folder: where shards are written.
        rules: what is done to media.
        shard_bytes: of a shard; an item is never split.
        timeout_s: longest time of one medium.
        versions: of the packages that decide the bytes.
        num_threads: media read and checked at once.
        isolated: decode each medium in a process of its own, whose crash or endless loop costs that medium alone.
    """

    root: str
    folder: Path
    rules: Normalisation
    shard_bytes: int
    timeout_s: float
    versions: dict[str, str]
    num_threads: int = 1
    isolated: bool = False


@dataclass(frozen=True, kw_only=True)
class UnitResult:
    """What became of a unit.

    Attributes:
        key: of the unit.
        shards: its tars in the folder; none if nothing of it could be used.
        facts: by modality and column of items.parquet, one value an item; shards counted from 0 on.
        faults: rows of errors.parquet.
    """

    key: str
    shards: list[Shard]
    facts: dict[str, dict[str, list[Any]]]
    faults: list[dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class _Medium:
    """A usable medium, and what the file was that it was made from."""

    info: MediaInfo
    data: bytes
    source_ext: str = ""
    source_size: int = 0
    source_xxh3: int = 0


def build_unit(unit: Unit, settings: UnitSettings, done: Callable[[int], None] = lambda items: None) -> UnitResult:
    """Write the unit's shards and tell what is in them.

    Args:
        done: called with 1 after each item, and with 0 after each medium, from any thread.

    Raises: OSError if a shard cannot be written. A bad medium is a fault, never an exception.
    """
    facts = {modality: {name: [] for name in _columns(modality)} for modality in MEDIA_MODALITIES}
    faults: list[dict[str, str]] = []
    with ShardWriter(settings.folder, unit.key, settings.shard_bytes) as shards:
        for number, (media, found) in enumerate(_read_ahead(unit.items, settings, done)):
            faults += found
            failed = {fault["modality"] for fault in found}
            key = item_key(unit.first_key + number)
            members = [(f"{key}.{name}.{medium.info.ext}", medium.data) for name, medium in media.items()]
            places = dict(zip(media, shards.add(members), strict=True)) if members else {}
            for name in MEDIA_MODALITIES:
                _note(facts[name], places.get(name), media.get(name), "error" if name in failed else "missing")
            done(1)
    return UnitResult(key=unit.key, shards=shards.shards, facts=facts, faults=faults)


_Loaded = tuple[dict[str, _Medium], list[dict[str, str]]]


def _read_ahead(items: list[Item], settings: UnitSettings, done: Callable[[int], None]) -> Iterator[_Loaded]:
    """Usable media of each item, in order of modalities, and a fault for each oddity; threads run ahead a little."""
    source = MediaSource(settings.root)
    isolated: AbstractContextManager = (
        IsolatedDecoder(settings.timeout_s, _ISOLATED_BYTES, imports=_LATE_IMPORTS)
        if settings.isolated
        else nullcontext(lambda function, *arguments: function(*arguments))
    )
    with isolated as run, ThreadPoolExecutor(settings.num_threads) as pool:
        pending: deque[tuple[int, Future[_Loaded]]] = deque()
        ahead = 0
        for item in items:
            while pending and (len(pending) > 4 * settings.num_threads or ahead + item.num_bytes > _AHEAD_BYTES):
                size, future = pending.popleft()
                yield future.result()
                ahead -= size
            pending.append((item.num_bytes, pool.submit(_load, item, source, settings.rules, run, done)))
            ahead += item.num_bytes
        while pending:
            yield pending.popleft()[1].result()


def _load(
    item: Item, source: MediaSource, rules: Normalisation, run: Callable[..., Any], done: Callable[[int], None]
) -> _Loaded:
    """Read, check and normalise what an item has; never raises for a bad file."""
    media: dict[str, _Medium] = {}
    faults: list[dict[str, str]] = []
    for modality in MEDIA_MODALITIES:
        if modality == "text" and item.text:
            media["text"] = _Medium(info=MediaInfo(ext="txt"), data=item.text.encode(errors="replace"))
        if modality not in item.paths:
            continue
        path = item.paths[modality]
        try:
            data = source.read(path)
            info, stored = run(probe_and_normalise, modality, data, rules)
        except MediaError as error:
            faults.append(_fault(item, modality, type(error).__name__, f"{path}: {error}"))
            continue
        finally:
            done(0)
        if info.note:
            faults.append(_fault(item, modality, "PartialMedia", f"{path}: {info.note}"))
        media[modality] = _Medium(
            info=info,
            data=stored,
            source_ext=info.source_ext or info.ext,
            source_size=len(data),
            source_xxh3=xxhash.xxh3_64_intdigest(data),
        )
    return media, faults


def _fault(item: Item, modality: str, error: str, message: str) -> dict[str, str]:
    return {"item_id": item.item_id, "modality": modality, "stage": "probe", "error": error, "message": message}


def _columns(modality: str) -> tuple[str, ...]:
    return ("shard", "offset", "size", "xxh3", "ext", "status", *MEDIA_FIELDS[modality])


def _note(facts: dict[str, list[Any]], place: Location | None, medium: _Medium | None, state: str) -> None:
    """Append to each column what the place, the file or the probe tells, or ``state`` where there is nothing."""
    for name, column in facts.items():
        if medium is None:
            column.append(state if name == "status" else None)
        else:
            knows = next(known for known in (place, medium, medium.info) if hasattr(known, name))
            column.append(getattr(knows, name))
