"""What a build will do: which items bring which media, what is equal and stored once, where shards begin.

Legend: V items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import polars as pl
import xxhash

from mmrec.data.manifest import MEDIA_MODALITIES
from mmrec.data.progress import progress
from mmrec.data.units import Item, Unit
from mmrec.errors import MediaError
from mmrec.media.source import MediaSource

__all__ = ["BuildPlan", "make_plan"]

# Headers of one camera or encoder are alike; the ends differ where the pictures do.
_SAMPLE_BYTES = 4096
_MEMBER_BYTES = 1024  # a tar header and half a block of padding, for most


@dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """A build before any medium is decoded.

    Attributes:
        item_ids, texts: of the items, in order. (V,)
        paths: by modality, in the source; None = missing. (V,)
        owner: by modality, the item whose bytes stand for each item's medium: itself, or an earlier one with the same
            bytes; -1 where it has none. (V,)
        starts: first item of each unit.
        fingerprint: of paths, sizes and times of change of all files: another one is another build.
    """

    item_ids: list[str]
    texts: list[str]
    paths: dict[str, list[str | None]]
    owner: dict[str, np.ndarray]
    starts: list[int]
    fingerprint: str

    @property
    def num_units(self) -> int:
        return len(self.starts)

    def unit(self, number: int, first_key: int) -> Unit:
        """The items of a unit, each with the media that it brings itself."""
        start = self.starts[number]
        stop = self.starts[number + 1] if number + 1 < len(self.starts) else len(self.item_ids)
        items = []
        for item in range(start, stop):
            own = {m: str(paths[item]) for m, paths in self.paths.items() if self.owner[m][item] == item}
            items.append(Item(self.item_ids[item], self.texts[item], own))
        return Unit(number, first_key + start, items)


def make_plan(
    items: pl.DataFrame,
    source: MediaSource,
    texts: list[str],
    columns: dict[str, str],
    shard_bytes: int,
    num_threads: int,
) -> BuildPlan:
    """Look at all files, and into those that may be equal.

    Args:
        items: item_id, and the named columns.
        texts: columns that make up an item's text, line by line.
        columns: modality -> column with paths.
        shard_bytes: size of source media after which a shard ends; an item is never split.
    """
    written = _texts(items, texts)
    bytes_of = np.array([len(text) + _MEMBER_BYTES if text else 0 for text in written], dtype=np.int64)
    paths, owner = {}, {}
    seen = xxhash.xxh3_128()
    with ThreadPoolExecutor(num_threads) as pool:
        for modality in (name for name in MEDIA_MODALITIES if name in columns):
            paths[modality] = items[columns[modality]].to_list()
            places = np.flatnonzero([path is not None for path in paths[modality]])
            files = _Files(source, modality, [paths[modality][item] for item in places.tolist()], pool)
            seen.update(repr((modality, files.names, files.stamps)).encode(errors="surrogatepass"))
            owner[modality] = np.full(items.height, -1)
            owner[modality][places] = places[files.first_equal()]
            own = owner[modality][places] == places
            bytes_of[places] += np.where(own, files.sizes.clip(min=0) + _MEMBER_BYTES, 0)
    return BuildPlan(
        item_ids=items["item_id"].to_list(),
        texts=written,
        paths=paths,
        owner=owner,
        starts=_cut(bytes_of, shard_bytes),
        fingerprint=seen.hexdigest(),
    )


def _texts(items: pl.DataFrame, columns: list[str]) -> list[str]:
    """The text columns of each item line by line, without those that are missing."""
    if not columns:
        return [""] * items.height
    joined = pl.concat_str([pl.col(name) for name in columns], separator="\n", ignore_nulls=True)
    return items.select(joined.alias("text"))["text"].fill_null("").to_list()


class _Files:
    """The files of one modality, as far as a plan looks at them. F files."""

    def __init__(
        self,
        source: MediaSource,
        modality: str,
        names: list[str],
        pool: ThreadPoolExecutor,
    ) -> None:
        self.names = names
        self._source, self._modality, self._pool = source, modality, pool
        self.stamps = self._over("looking at", self._stamp, names)
        self.sizes = np.array([-1 if stamp is None else stamp[0] for stamp in self.stamps], dtype=np.int64)  # (F,)

    def first_equal(self) -> np.ndarray:
        """For each file the first with the same bytes: of one size, then of one beginning and end, then of one hash.

        A file whose name claims another format stays by itself: the name is judged with the bytes.
        """
        readable = np.flatnonzero(self.sizes >= 0)
        kinds = [PurePath(self.names[place]).suffix.lower() for place in readable.tolist()]
        groups = _groups(zip(self.sizes[readable].tolist(), kinds, strict=True), readable)
        for digest in (self._sample, self._whole):
            members = [place for group in groups for place in group.tolist()]
            hashes = self._over("comparing", digest, [self.names[place] for place in members])
            found = dict(zip(members, hashes, strict=True))
            groups = [part for group in groups for part in _groups([found[place] for place in group.tolist()], group)]
        first = np.arange(len(self.names))
        for group in groups:
            first[group] = group[0]
        return first

    def _over(self, doing: str, function: Callable[[str], Any], names: list[str]) -> list[Any]:
        found = []
        with progress(f"{doing} {self._modality} files", len(names), "files") as advance:
            for result in self._pool.map(function, names):
                found.append(result)
                advance(1)
        return found

    def _stamp(self, path: str) -> tuple[int, str] | None:
        """Size and time of change; None for what cannot be read, of which the unit will tell."""
        try:
            return self._source.stamp(path)
        except MediaError:
            return None

    def _sample(self, path: str) -> str | None:
        try:
            return xxhash.xxh3_128_hexdigest(self._source.ends(path, _SAMPLE_BYTES))
        except MediaError:
            return None

    def _whole(self, path: str) -> str | None:
        try:
            return xxhash.xxh3_128_hexdigest(self._source.read(path))
        except MediaError:
            return None


def _groups(keys: Iterable[object], places: np.ndarray) -> list[np.ndarray]:
    """Places of equal keys, two or more, each group ascending; a key of None equals nothing."""
    members: dict[object, list[int]] = {}
    for key, place in zip(keys, places.tolist(), strict=True):
        if key is not None:
            members.setdefault(key, []).append(place)
    return [np.array(group) for group in members.values() if len(group) > 1]


def _cut(bytes_of: np.ndarray, shard_bytes: int) -> list[int]:
    """First items of parts of at most ``shard_bytes``, or of one item."""
    starts, filled = [0], 0
    for item, size in enumerate(bytes_of.tolist()):
        if filled and filled + size > shard_bytes:
            starts.append(item)
            filled = 0
        filled += size
    return starts
