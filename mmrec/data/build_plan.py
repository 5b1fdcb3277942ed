"""What a build will do: which items bring which media, what is equal and stored once, where units begin.

Legend: V items.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
_MOST_WAITING = 10_000  # files given to the threads at once
_MEMBER_BYTES = 2 * tarfile.BLOCKSIZE  # a tar header, and padding to a whole block


@dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """A build before any medium is decoded.

    Attributes:
        item_ids, texts: of the items, in order. (V,)
        paths: by modality, in the source; None = missing. (V,)
        stamps: by modality, bytes and time of change of each file; None for what cannot be read. (V,)
        owner: by modality, the item whose bytes stand for each item's medium: itself, or an earlier one with the same
            bytes; -1 where it has none, or where ``known`` has it. (V,)
        known: by modality, the row of the former version that has the same bytes; -1 for none. (V,)
        num_bytes: of the files and the text that each item brings itself. (V,)
        starts: first item of each unit.
        first_key: key of the first item.
        ground: of all settings and versions that decide the bytes of a unit.
    """

    item_ids: list[str]
    texts: list[str]
    paths: dict[str, list[str | None]]
    stamps: dict[str, list[tuple[int, str] | None]]
    owner: dict[str, np.ndarray]
    known: dict[str, np.ndarray]
    num_bytes: np.ndarray
    starts: list[int]
    first_key: int
    ground: str

    @property
    def num_units(self) -> int:
        return len(self.starts)

    def unit(self, number: int, key: str) -> Unit:
        """The items of a unit, whose key it is, each with the media that it brings itself."""
        items = []
        for item in self._items(number):
            own = {m: str(paths[item]) for m, paths in self.paths.items() if self.owner[m][item] == item}
            items.append(Item(self.item_ids[item], self.texts[item], own, int(self.num_bytes[item])))
        return Unit(key, self.first_key + self.starts[number], items)

    def unit_key(self, number: int) -> str:
        """Of all that decides the bytes of a unit: the same key, the same bytes."""
        digest = hashlib.sha256(f"{self.ground}\n{self.first_key + self.starts[number]}\n".encode())
        for item in self._items(number):
            own = [
                (m, paths[item], self.stamps[m][item]) for m, paths in self.paths.items() if self.owner[m][item] == item
            ]
            digest.update(repr((self.item_ids[item], self.texts[item], own)).encode(errors="surrogatepass"))
        return digest.hexdigest()[:32]

    def _items(self, number: int) -> range:
        stop = self.starts[number + 1] if number + 1 < len(self.starts) else len(self.item_ids)
        return range(self.starts[number], stop)


def make_plan(
    items: pl.DataFrame,
    source: MediaSource,
    texts: list[str],
    columns: dict[str, str],
    *,
    former: pl.DataFrame | None,
    shard_bytes: int,
    first_key: int,
    ground: str,
    num_threads: int,
) -> BuildPlan:
    """Look at all files, and into those that may be equal.

    Args:
        items: item_id, and the named columns.
        texts: columns that make up an item's text, line by line.
        columns: modality -> column with paths.
        former: the item table of a former version, whose media need not be stored again.
        shard_bytes: size of source media after which a unit ends; an item is never split.
        first_key, ground: as in the plan.
    """
    written = _texts(items, texts)
    num_bytes = np.array([len(text.encode(errors="replace")) for text in written], dtype=np.int64)
    stored_bytes = np.where(num_bytes > 0, num_bytes + _MEMBER_BYTES, 0)
    paths, stamps, owner, known = {}, {}, {}, {}
    with ThreadPoolExecutor(num_threads) as pool:
        for modality in (name for name in MEDIA_MODALITIES if name in columns):
            paths[modality] = items[columns[modality]].to_list()
            places = np.flatnonzero([path is not None for path in paths[modality]])
            files = _Files(source, modality, [paths[modality][item] for item in places.tolist()], pool)
            first, row = files.judge(_stored(former, modality))
            owner[modality], known[modality] = np.full(items.height, -1), np.full(items.height, -1)
            owner[modality][places] = np.where(row < 0, places[first], -1)
            known[modality][places] = row
            stamps[modality] = [None] * items.height
            for item, stamp in zip(places.tolist(), files.stamps, strict=True):
                stamps[modality][item] = stamp
            own = owner[modality][places] == places
            num_bytes[places] += np.where(own, files.sizes.clip(min=0), 0)
            stored_bytes[places] += np.where(own, files.sizes.clip(min=0) + _MEMBER_BYTES, 0)
    return BuildPlan(
        item_ids=items["item_id"].to_list(),
        texts=written,
        paths=paths,
        stamps=stamps,
        owner=owner,
        known=known,
        num_bytes=num_bytes,
        starts=_cut(stored_bytes, shard_bytes - tarfile.RECORDSIZE),
        first_key=first_key,
        ground=ground,
    )


def _texts(items: pl.DataFrame, columns: list[str]) -> list[str]:
    """The text columns of each item line by line, without those that are missing."""
    if not columns:
        return [""] * items.height
    joined = pl.concat_str([pl.col(name) for name in columns], separator="\n", ignore_nulls=True)
    return items.select(joined.alias("text"))["text"].fill_null("").to_list()


def _stored(former: pl.DataFrame | None, modality: str) -> pl.DataFrame:
    """Row, bytes and hash of the files of which the former version has a usable medium."""
    if former is None:
        return pl.DataFrame(schema={"row": pl.UInt32, "size": pl.Int64, "xxh3": pl.UInt64})
    stored = former.filter(pl.col(f"{modality}.shard").is_not_null()).select(
        pl.col("item_idx").alias("row"),
        pl.col(f"{modality}.source_size").alias("size"),
        pl.col(f"{modality}.source_xxh3").alias("xxh3"),
    )
    return stored.unique(["size", "xxh3"], keep="first", maintain_order=True)


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

    def judge(self, stored: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """What is equal, here and in a former version: of one size, then of one beginning and end, then of one hash.

        Args:
            stored: row, size and xxh3 of former files.

        Returns:
            first: the first file with the same bytes. (F,)
            row: the row of ``stored`` with the same bytes, -1 for none. (F,)
        """
        readable = np.flatnonzero(self.sizes >= 0)
        groups = _groups(self.sizes[readable].tolist(), readable)
        groups = self._divided(groups, self._hashes(self._ends, groups))
        before = readable[np.isin(self.sizes[readable], stored["size"].to_numpy())]
        whole = self._hashes(self._whole, [*groups, before])
        first, row = np.arange(len(self.names)), np.full(len(self.names), -1)
        for group in self._divided(groups, whole):
            first[group] = group[0]
        known = stored.filter(pl.col("size").is_in(np.unique(self.sizes[before])))
        row_of = {(size, xxh3): number for number, size, xxh3 in known.iter_rows()}
        for place in before.tolist():
            row[place] = row_of.get((int(self.sizes[place]), whole[place]), -1)
        return first, row

    def _hashes(self, digest: Callable[[str], int | None], groups: list[np.ndarray]) -> dict[int, int | None]:
        places = sorted({place for group in groups for place in group.tolist()})
        found = self._over("comparing", digest, [self.names[place] for place in places])
        return dict(zip(places, found, strict=True))

    @staticmethod
    def _divided(groups: list[np.ndarray], keys: dict[int, int | None]) -> list[np.ndarray]:
        return [part for group in groups for part in _groups([keys[place] for place in group.tolist()], group)]

    def _over(self, doing: str, function: Callable[[str], Any], names: list[str]) -> list[Any]:
        found = []
        with progress(f"{doing} {self._modality} files", len(names), "files") as advance:
            for start in range(0, len(names), _MOST_WAITING):
                for result in self._pool.map(function, names[start : start + _MOST_WAITING]):
                    found.append(result)
                    advance(1)
        return found

    def _stamp(self, path: str) -> tuple[int, str] | None:
        """Size and time of change; None for what cannot be read, of which the unit will tell."""
        try:
            return self._source.stamp(path)
        except MediaError:
            return None

    def _ends(self, path: str) -> int | None:
        try:
            return xxhash.xxh3_64_intdigest(self._source.ends(path, _SAMPLE_BYTES))
        except MediaError:
            return None

    def _whole(self, path: str) -> int | None:
        digest = xxhash.xxh3_64()
        try:
            for block in self._source.blocks(path):
                digest.update(block)
        except MediaError:
            return None
        return digest.intdigest()


def _groups(keys: Iterable[object], places: np.ndarray) -> list[np.ndarray]:
    """Places of equal keys, two or more, each group ascending; a key of None equals nothing."""
    members: dict[object, list[int]] = {}
    for key, place in zip(keys, places.tolist(), strict=True):
        if key is not None:
            members.setdefault(key, []).append(place)
    return [np.array(group) for group in members.values() if len(group) > 1]


def _cut(bytes_of: np.ndarray, unit_bytes: int) -> list[int]:
    """First items of parts of at most ``unit_bytes``, or of one item."""
    starts, filled = [0], 0
    for item, size in enumerate(bytes_of.tolist()):
        if filled and filled + size > unit_bytes:
            starts.append(item)
            filled = 0
        filled += size
    return starts
