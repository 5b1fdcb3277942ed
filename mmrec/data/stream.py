"""A dataset folder read in the order of its shards: the `webdataset` package over the tar files, item by item.

What a stream gives of an item is what ``Dataset.read`` gives, for every item, whatever became of the tar files: each
member is checked by its hash, and what did not come, or lies under another item's key, is read by offset.
"""

from __future__ import annotations

import logging
import tarfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from mmrec.data.dataset import Dataset, as_text
from mmrec.data.faults import FaultBudget
from mmrec.data.manifest import MEDIA_MODALITIES
from mmrec.data.shard_reader import is_intact
from mmrec.data.shards import shard_name
from mmrec.errors import ConfigError, DataError, MediaError, MMRecError

__all__ = ["stream_items"]

logger = logging.getLogger(__name__)

# What reading a damaged tar file raises: of the archive, the disk, the end, names that come twice.
_TAR_ERRORS = (tarfile.TarError, OSError, EOFError, ValueError, OverflowError)


def stream_items(
    dataset: Dataset, *, part: int = 0, num_parts: int = 1, faults: FaultBudget | None = None
) -> Iterator[dict[str, Any]]:
    """Each item once: ``item_idx``, ``item_id``, and by modality the bytes of its medium or its text.

    Items come in the order in which they are stored; those whose every medium is stored with another item follow the
    shard of their first medium, those without media come last. A damaged medium is absent from its item.

    Args:
        part, num_parts: give the shards ``part``, ``part + num_parts``, ...: the parts together are the dataset.
        faults: counts damaged media, to be read afterwards, and stops the stream when there are too many.

    Raises:
        ConfigError: if ``part`` is not below ``num_parts``.
        DataError: if too many media are damaged, or a shard cannot be opened.
    """
    if not 0 <= part < num_parts:
        raise ConfigError(f"part is {part} of {num_parts}; it must be 0 to {num_parts - 1}")
    faults = faults or FaultBudget()
    keys = dataset.attributes["media_key"].fill_null(-1).to_numpy().astype(np.int64)  # -1: no key, (V,)
    home, owns = _homes(dataset, keys)
    order = np.lexsort((np.arange(len(home)), keys, home))
    starts = np.searchsorted(home[order], np.arange(home.max(initial=0) + 2))
    for shard in range(part, len(starts) - 1, num_parts):
        items = order[starts[shard] : starts[shard + 1]]
        waiting: dict[int, list[int]] = {}
        for key, item in zip(keys[items].tolist(), items.tolist(), strict=True):
            waiting.setdefault(key, []).append(item)
        for key, members in _groups(dataset, shard) if owns[items].any() else ():
            for item in waiting.pop(key, ()):
                yield _sample(dataset, item, members, faults)
        rest = [item for group in waiting.values() for item in group]
        lost = int(owns[rest].sum())
        if lost:
            logger.warning(
                "%s: a tar reader finds %d of its %d items; the others are read by offset; run `mmrec check`",
                shard_name(shard), int(owns[items].sum()) - lost, int(owns[items].sum()),
            )  # fmt: skip
        for item in rest:
            yield _sample(dataset, item, {}, faults)


def _homes(dataset: Dataset, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The shard with which each item comes, and whether it has members there; items without media come after the last.

    Of items that share a member, the one with the lowest key stored it. An item's own members lie in one shard.
    """
    own = np.full(dataset.num_items, -1)
    first = np.full(dataset.num_items, -1)
    for modality in reversed([name for name in MEDIA_MODALITIES if name in dataset.modalities]):
        shard, offset = dataset.media_places(modality)
        items = np.flatnonzero(shard >= 0)
        items = items[np.lexsort((keys[items], offset[items], shard[items]))]
        first[items] = shard[items]
        items = items[keys[items] >= 0]
        stored = np.ones(len(items), dtype=bool)
        stored[1:] = (np.diff(shard[items]) != 0) | (np.diff(offset[items]) != 0)
        own[items[stored]] = shard[items[stored]]
    home = np.where(own >= 0, own, first)
    return np.where(home >= 0, home, home.max(initial=-1) + 1), own >= 0


def _groups(dataset: Dataset, shard: int) -> Iterator[tuple[int, dict[str, bytes]]]:
    """Key and members, by modality, of each item that plain `webdataset` finds in a shard, up to where it breaks."""
    from webdataset.tariterators import group_by_keys, tar_file_expander

    def stop(error: Exception) -> bool:
        if isinstance(error, MMRecError):  # without what the package has added to the message
            raise DataError(str(error.args[0]).partition(" @ <")[0]) from error
        if isinstance(error, _TAR_ERRORS):
            return False
        raise error

    with dataset.open_shard(shard) as file:
        source = [{"url": shard_name(shard), "stream": _PlainTar(file)}]
        for group in group_by_keys(tar_file_expander(source, handler=stop), handler=stop):
            if group["__key__"].isdecimal():
                members = {name.split(".")[0]: data for name, data in group.items() if isinstance(data, bytes)}
                yield int(group["__key__"]), members


class _PlainTar:
    """A tar file for a reader, up to a member that is none of those that are written here.

    Readers of tar files unpack what is compressed, and fill the holes of sparse members: a few bytes become terabytes.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._at = self._next_header = 0

    def read(self, size: int) -> bytes:
        """Raises: tarfile.ReadError if a member begins here that is no plain file."""
        data = self._file.read(size)  # whole blocks, as readers of tar files ask for them
        while self._next_header < self._at + len(data):
            place = self._next_header - self._at
            header = data[place : place + tarfile.BLOCKSIZE]
            self._next_header += tarfile.BLOCKSIZE + (self._size(header) if any(header) else 0)
        self._at += len(data)
        return data

    def _size(self, header: bytes) -> int:
        """Bytes of a member up to the next header."""
        # At the beginning of the file a name of digits is what no compressed file begins with.
        if header[156:157] not in (b"0", b"\0") or not (self._next_header or header[:1].isdigit()):
            raise tarfile.ReadError("a member that is no plain file")
        try:
            size = int(header[124:136].rstrip(b" \0") or b"0", 8)
        except ValueError as error:
            raise tarfile.ReadError("a member of no size") from error
        return -(-max(size, 0) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _sample(dataset: Dataset, item_idx: int, members: dict[str, bytes], faults: FaultBudget) -> dict[str, Any]:
    sample: dict[str, Any] = {"item_idx": item_idx, "item_id": str(dataset.item_ids[item_idx])}
    for modality in MEDIA_MODALITIES:
        location = dataset.location(modality, item_idx)
        if location is None:
            continue
        data, found = members.get(modality), []
        try:
            if data is not None and is_intact(data, location):
                sample[modality] = as_text(data) if modality == "text" else data
            else:
                sample[modality] = dataset.read(modality, item_idx)
        except MediaError as error:
            found = [f"{modality} of item {sample['item_id']}: {error}"]
        faults.tally(1, found)
    return sample
