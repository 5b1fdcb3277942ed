"""Media that are nearly the same in several items, found without comparing each with each.

Hashes of 64 bits are cut into four bands of 16. Two that differ in at most 7 bits differ in at most one bit within some
band, so each is looked up under 17 keys a band (multi-index hashing). Candidates are then decided by their sketches.

Source: Norouzi, Punjani and Fleet, Fast Search in Hamming Space with Multi-Index Hashing, CVPR 2012.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mmrec.data.audit.fingerprints import Fingerprint, fingerprint
from mmrec.data.dataset import Dataset
from mmrec.data.manifest import MEDIA_MODALITIES
from mmrec.data.progress import progress
from mmrec.data.sequences import ragged_range
from mmrec.errors import MediaError

__all__ = ["NearDuplicates", "near_duplicates", "near_pairs", "normalised"]

# At most so many different media are compared, drawn by a seed: decoding bounds the time (minutes on a few cores).
MOST = {"image": 20_000, "text": 500_000, "audio": 4_000, "video": 2_000}
RADIUS = 7
# Correlation of two sketches (the least of their rows) from which on the media count as the same.
SAME = {"image": 0.97, "audio": 0.98, "video": 0.995}
# Of those that share a band, so many are compared with each; larger groups join through these.
_BUCKET = 256
_BLOCK = 512


@dataclass(kw_only=True)
class NearDuplicates:
    """Groups of items whose media of one modality are nearly, but not byte for byte, the same.

    Attributes:
        groups: ``item_idx`` of each group, ascending; the largest group first. Byte-equal media are there once.
        num_compared, num_different: how many different media were compared, and how many there are.
        undecodable: item_idx -> why its stored medium does not decode.
    """

    modality: str
    groups: list[np.ndarray]
    num_compared: int
    num_different: int
    undecodable: dict[int, str] = field(default_factory=dict)


def near_duplicates(dataset: Dataset, *, most: dict[str, int] | None = None) -> Iterator[NearDuplicates]:
    """Search each of the dataset's media; texts count as the same if letters and digits are, whatever their case.

    Args:
        most: modality -> number of different media to compare at most.
    """
    for modality in MEDIA_MODALITIES:
        if modality not in dataset.modalities:
            continue
        items = np.flatnonzero(dataset.present(modality))
        _, first = np.unique(dataset.media_hashes(modality)[items], return_index=True)
        different = items[np.sort(first)]
        limit = (most or MOST)[modality]
        chosen = different
        if len(different) > limit:
            generator = np.random.Generator(np.random.Philox(0))
            chosen = np.sort(generator.choice(different, size=limit, replace=False))
        search = _equal_texts if modality == "text" else _alike
        with progress(f"comparing {modality}", len(chosen), "items") as advance:
            groups, undecodable = search(dataset, modality, chosen, advance)
        groups.sort(key=lambda group: (-len(group), int(group[0])))
        yield NearDuplicates(
            modality=modality,
            groups=groups,
            num_compared=len(chosen),
            num_different=len(different),
            undecodable=undecodable,
        )


def near_pairs(hashes: np.ndarray, radius: int = RADIUS) -> np.ndarray:
    """All pairs (i < j) of ``hashes`` (uint64) that differ in at most ``radius`` <= 7 bits. int64 (P, 2)

    Where more than 256 share a band, all of them are compared with 256 of these only.
    """
    # Bits of one region fall alike in many pictures (a white ground): bands are drawn from all over.
    order_of_bits = np.random.Generator(np.random.Philox(0)).permutation(64)
    bits = np.unpackbits(hashes.astype("<u8").view(np.uint8).reshape(-1, 8), axis=1)[:, order_of_bits]
    bands = np.ascontiguousarray(np.packbits(bits, axis=1)).view(np.uint16)  # (n, 4)
    number = max(len(hashes), 1)
    found = [np.empty(0, np.int64)]  # a pair as one number: i * number + j
    everyone = np.arange(len(hashes))
    for band in bands.T:
        order = np.argsort(band, kind="stable")
        keys = band[order]
        for flip in (0, *(1 << bit for bit in range(16))):
            wanted = band ^ np.uint16(flip)
            low = np.searchsorted(keys, wanted)
            counts = np.minimum(np.searchsorted(keys, wanted, side="right") - low, _BUCKET)
            left, right = np.repeat(everyone, counts), order[ragged_range(low, counts)]
            near = (np.bitwise_count(hashes[left] ^ hashes[right]) <= radius) & (left != right)
            left, right = left[near], right[near]
            found.append(np.minimum(left, right) * number + np.maximum(left, right))
    # Sorted by hand: np.unique hashes, which takes minutes where the pairs are many.
    keys = np.sort(np.concatenate(found))
    return np.stack(np.divmod(keys[np.diff(keys, prepend=-1) > 0], number), axis=1)


def normalised(text: str) -> str:
    """Letters and digits in small letters, one blank between words."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))


_Found = tuple[list[np.ndarray], dict[int, str]]


def _equal_texts(dataset: Dataset, modality: str, items: np.ndarray, advance: Callable[[int], None]) -> _Found:
    by_text: dict[str, list[int]] = {}
    for item in items.tolist():
        by_text.setdefault(normalised(str(dataset.read(modality, item))), []).append(item)
        advance(1)
    return [np.array(group) for text, group in by_text.items() if text and len(group) > 1], {}


def _alike(dataset: Dataset, modality: str, items: np.ndarray, advance: Callable[[int], None]) -> _Found:
    found: dict[int, Fingerprint] = {}
    undecodable: dict[int, str] = {}

    def look(item: int) -> Fingerprint | str | None:
        data = dataset.read(modality, item)
        assert isinstance(data, bytes)
        try:
            return fingerprint(modality, data)
        except MediaError as error:
            return str(error)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for start in range(0, len(items), _BLOCK):
            block = items[start : start + _BLOCK].tolist()
            for item, seen in zip(block, pool.map(look, block), strict=True):
                advance(1)
                if isinstance(seen, str):
                    undecodable[item] = seen
                elif seen is not None:
                    found[item] = seen
    if not found:
        return [], undecodable
    pairs = near_pairs(np.array([one.bits for one in found.values()], dtype=np.uint64))
    sketches = np.stack([one.sketch for one in found.values()])
    same = np.concatenate(
        [np.zeros(0, bool)]
        + [
            np.einsum("prd,prd->pr", sketches[left], sketches[right]).min(axis=1) >= SAME[modality]
            for left, right in (pairs[start : start + 65_536].T for start in range(0, len(pairs), 65_536))
        ]
    )
    return _components(np.array(list(found)), pairs[same]), undecodable


def _components(items: np.ndarray, pairs: np.ndarray) -> list[np.ndarray]:
    """Items that hang together by ``pairs`` of their places, groups of two or more."""
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(items), len(items)))
    _, labels = connected_components(links, directed=False)
    order = np.argsort(labels, kind="stable")
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    return [items[order[start : start + count]] for start, count in zip(starts, counts, strict=True) if count > 1]
