"""From records and datasets to :class:`ItemBatch`: preprocessing, caching, masking of what cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmrec.batch import ItemBatch
from mmrec.data.dataset import DAMAGED_VECTOR, Dataset
from mmrec.data.faults import FaultBudget
from mmrec.data.feature_cache import FeatureCache
from mmrec.data.npy import finite_rows
from mmrec.errors import ConfigError, MediaError
from mmrec.modality_encoders import ItemIdPreprocessing, Preprocessing
from mmrec.modality_encoders.features import FeaturesPreprocessing

__all__ = ["CatalogInputs", "ItemInputs", "Sample", "parts_of"]

# Of collated inputs that are read at once where nothing is learnt from them.
CHUNK_BYTES = 32 << 20
# Media whose inputs tell how large those of a modality are.
MEASURED = 4


@dataclass(frozen=True)
class Sample:
    """What a model's preprocessing has made of a raw value elsewhere, such as in a process that may crash."""

    value: Any


class ItemInputs:
    """The preprocessings of a model, in its order of modalities.

    Args:
        preprocessings: by modality.
    """

    def __init__(self, preprocessings: Mapping[str, Preprocessing]) -> None:
        self.preprocessings = dict(preprocessings)
        self.modalities = tuple(preprocessings)

    def from_records(self, records: Sequence[Mapping[str, Any]]) -> ItemBatch:
        """A batch from raw records of items outside any dataset, with ``item_idx`` -1.

        Args:
            records: per item, raw values by modality; a missing key, or None, is a missing modality.
                A :class:`Sample` is taken as it is.

        Raises: MediaError if a given medium cannot be used; ConfigError if the model does not know a modality.
        """
        for record in records:
            for name in record:
                if name not in self.preprocessings:
                    known = ", ".join(self.modalities)
                    raise ConfigError(f"this model does not encode {name!r}; it encodes {known}")
        present = np.array([[record.get(name) is not None for name in self.modalities] for record in records])
        samples = {
            name: [self._sample(name, record[name]) for record in records if record.get(name) is not None]
            for name in self.modalities
        }
        return self.batch(np.full(len(records), -1), present, samples)

    def _sample(self, name: str, value: Any) -> Any:
        return value.value if isinstance(value, Sample) else self.preprocessings[name](value)

    def batch(self, item_idx: np.ndarray, present: np.ndarray, samples: Mapping[str, Any]) -> ItemBatch:
        """Collate. ``samples`` holds, per modality, the samples of its present items in the order of rows.

        A dictionary of tensors in their place is collated already.
        """
        inputs = {
            name: samples[name] if isinstance(samples[name], dict) else self.preprocessings[name].collate(samples[name])
            for column, name in enumerate(self.modalities)
            if present[:, column].any()
        }
        return ItemBatch(
            item_idx=torch.from_numpy(np.asarray(item_idx, dtype=np.int64)),
            modalities=self.modalities,
            present=torch.from_numpy(np.asarray(present, dtype=bool)),
            inputs=inputs,
        )


class CatalogInputs:
    """Items of a dataset as batches; each medium is decoded once and its small sample kept in memory.

    Preprocessing is deterministic, so that a kept sample is exactly what decoding again would give. A medium that
    turns out damaged becomes a masked modality and is counted; the batch keeps its size.

    Args:
        dataset: where media are read.
        inputs: the model's preprocessings.
        cache_bytes: samples kept in memory at most; beyond it media are decoded at each use.
        num_threads: threads that read and decode.
        max_faults: largest share of the media read so far that may be damaged; past it, reading raises DataError.

    Raises: ConfigError if the dataset lacks a modality that the model encodes.
    """

    def __init__(
        self,
        dataset: Dataset,
        inputs: ItemInputs,
        *,
        cache_bytes: int = 4 << 30,
        num_threads: int = 4,
        max_faults: float = 0.01,
    ) -> None:
        self.dataset = dataset
        self.inputs = inputs
        self._faults = FaultBudget(max_faults)
        self.present = np.stack([self._has(name) for name in inputs.modalities], axis=1)  # (V, M)
        self._room = cache_bytes
        self._pool = ThreadPoolExecutor(num_threads)
        self._kept: dict[str, dict[int, Any]] = {name: {} for name in inputs.modalities}
        self._tables: dict[str, np.ndarray] = {}
        self._rows: dict[str, np.ndarray] = {}  # item_idx -> row of the table
        self._features: dict[str, tuple[np.ndarray, Tensor, Tensor]] = {}
        self._caches: dict[str, tuple[FeatureCache, str, bool]] = {}
        self._sizes: dict[str, float] = {}

    @property
    def faults(self) -> int:
        """Media found damaged so far."""
        return self._faults.num_faults

    def _has(self, name: str) -> np.ndarray:
        preprocessing = self.inputs.preprocessings[name]
        if isinstance(preprocessing, ItemIdPreprocessing):
            return preprocessing.known().copy()
        if name not in self.dataset.modalities:
            has = ", ".join(self.dataset.modalities) or "none"
            raise ConfigError(f"the model encodes {name!r}, of which {self.dataset.place} has nothing (it has: {has})")
        return self.dataset.present(name).copy()

    def batch(
        self,
        item_idx: np.ndarray,
        keep: np.ndarray | None = None,
        reread: Mapping[str, np.ndarray] | None = None,
    ) -> ItemBatch:
        """The given items.

        Args:
            item_idx: catalogue indices. (I,)
            keep: False hides a modality (modality dropout). (I, M)
            reread: by modality, True for items whose media are given beside kept outputs. (I,)
        """
        samples, media = {}, {}
        for column, name in enumerate(self.inputs.modalities):
            wanted = self.present[item_idx, column]
            if keep is not None:
                wanted = wanted & keep[:, column]
            if name not in self._features:
                samples[name] = self._media(column, item_idx[wanted])
                continue
            rows, features, mask = self._features[name]
            place = torch.from_numpy(rows[item_idx[wanted]])
            samples[name] = {"features": features[place], "mask": mask[place]}
            again = np.flatnonzero(reread[name][wanted]) if reread and name in reread else ()
            if len(again):
                media[name] = torch.from_numpy(again), self.media(name, item_idx[wanted][again])
        present = self.present[item_idx]  # read again: decoding may have found faults
        present = present if keep is None else present & keep
        return replace(self.inputs.batch(item_idx, present, samples), reread=media)

    def media(self, name: str, item_idx: np.ndarray) -> dict[str, Tensor]:
        """Collated inputs of one modality's network, whether or not its outputs are kept, of items that have it.

        Items whose media prove damaged are left out; empty if all do.
        """
        found = self._media(self.inputs.modalities.index(name), item_idx)
        if isinstance(found, dict):
            return found
        return self.inputs.preprocessings[name].collate(list(found)) if len(found) else {}

    def _media(self, column: int, item_idx: np.ndarray) -> Any:
        name = self.inputs.modalities[column]
        return self._cached(column, item_idx) if name in self._caches else self._samples(column, item_idx)

    def chunks(self, item_idx: np.ndarray, max_items: int, *, media: str | None = None) -> list[np.ndarray]:
        """The given items in parts that can be read at once, in order: ``max_items`` at most, of about CHUNK_BYTES.

        A clip takes as much as many pictures: parts of so many items each would need memory for whatever these have.

        Args:
            media: count the media of this modality, and nothing else; None: all that :meth:`batch` gives.
        """
        columns = [self.inputs.modalities.index(media)] if media else range(len(self.inputs.modalities))
        sizes = np.zeros(len(item_idx))
        for column in columns:
            has = self.present[item_idx, column]
            if has.any():
                sizes[has] += self._size(column, media is not None)
        return parts_of(item_idx, sizes, max_items)

    def _size(self, column: int, of_media: bool) -> float:
        """Bytes of an item's collated inputs of a modality, about: the mean of a few."""
        name = self.inputs.modalities[column]
        if name in self._features and not of_media:
            return float(self._features[name][1][:1].nbytes)
        if name not in self._sizes:
            items = np.flatnonzero(self.present[:, column])
            some = items[np.unique(np.linspace(0, len(items) - 1, MEASURED).astype(int))]
            self._sizes[name] = sum(values.nbytes / len(values) for values in self.media(name, some).values())
        return self._sizes[name]

    def use_features(self, name: str, item_idx: np.ndarray, features: Tensor, mask: Tensor) -> None:
        """From now on give what a tower made of a modality in place of the medium.

        Args:
            item_idx: all items that have the modality. (P,)
            features, mask: the tower's output for each, and which tokens are real. ("P", "T", "W"), ("P", "T")
        """
        rows = np.full(self.dataset.num_items, -1)
        rows[item_idx] = np.arange(len(item_idx))
        self._features[name] = (rows, features, mask)

    def kept_features(self, names: Collection[str]) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
        """What :meth:`use_features` set, by modality: items, features, mask."""
        kept = {name: self._features[name] for name in names if name in self._features}
        return {
            name: (torch.from_numpy(np.flatnonzero(rows >= 0)), features, mask)
            for name, (rows, features, mask) in kept.items()
        }

    def use_media(self) -> None:
        """Give media again in place of outputs; what :meth:`use_cache` set stays."""
        self._features.clear()

    def use_cache(self, name: str, cache: FeatureCache, keeps: str, *, brings_inputs: bool) -> None:
        """From now on give what a frozen network, or the frozen part of one, made of a modality.

        Items whose media could not be read lose the modality.

        Args:
            keeps: "features" or "hidden", the name under which the encoder expects it.
            brings_inputs: give the modality's own inputs beside a hidden state.
        """
        column = self.inputs.modalities.index(name)
        items = np.flatnonzero(self.present[:, column])
        self.present[items[cache.unreadable(items)], column] = False
        self._caches[name] = (cache, keeps, brings_inputs and keeps == "hidden")
        self._sizes.pop(name, None)

    def samples_once(self, name: str, item_idx: np.ndarray) -> tuple[np.ndarray, dict[str, Tensor]]:
        """Collated inputs of a modality for one use, not kept in memory, and the items that could be read."""
        column = self.inputs.modalities.index(name)
        decoded = self._decode(column, item_idx.tolist())
        found = [(index, sample) for index, sample in zip(item_idx, decoded, strict=True) if sample is not None]
        items = np.array([index for index, _ in found], dtype=np.int64)
        samples = [sample for _, sample in found]
        return items, self.inputs.preprocessings[name].collate(samples) if samples else {}

    def _cached(self, column: int, item_idx: np.ndarray) -> dict[str, Tensor]:
        name = self.inputs.modalities[column]
        cache, keeps, brings_inputs = self._caches[name]
        values, mask = cache.read(item_idx)
        if keeps == "features":
            return {"features": values, "mask": mask}
        inputs = (
            self.inputs.preprocessings[name].collate(list(self._samples(column, item_idx))) if brings_inputs else {}
        )
        return {**inputs, "hidden": values, "hidden_mask": mask}

    def gives_features(self, name: str) -> bool:
        """Whether batches carry what a network made of the modality, for good."""
        return name in self._caches and self._caches[name][1] == "features"

    def _gives_media(self, name: str) -> bool:
        return name not in self._caches or self._caches[name][2]

    def warm(self, progress: Callable[[int], None] | None = None) -> None:
        """Decode the whole catalogue once; ``progress`` is told the number of items done, part by part."""
        for part in self.chunks(np.arange(self.dataset.num_items), 256):
            for column, name in enumerate(self.inputs.modalities):
                if self._gives_media(name):
                    self._samples(column, part[self.present[part, column]])
            if progress:
                progress(len(part))
        for column, name in enumerate(self.inputs.modalities):
            if self._gives_media(name):
                self._stack(column, name)

    def _samples(self, column: int, item_idx: np.ndarray) -> Sequence[Any] | np.ndarray:
        name = self.inputs.modalities[column]
        if name in self._tables:
            return self._tables[name][self._rows[name][item_idx]]
        if self._room <= 0 and isinstance(self.inputs.preprocessings[name], FeaturesPreprocessing):  # none is kept
            return self._vectors(column, item_idx)[1]
        kept = self._kept[name]
        missing = [index for index in item_idx.tolist() if index not in kept]
        fresh = dict(zip(missing, self._decode(column, missing), strict=True))
        for index, sample in fresh.items():
            size = getattr(sample, "nbytes", 8)
            if sample is not None and size <= self._room:
                kept[index] = sample
                self._room -= size
        samples = [kept[index] if index in kept else fresh[index] for index in item_idx.tolist()]
        return [sample for sample in samples if sample is not None]

    def _decode(self, column: int, items: list[int]) -> list[Any]:
        """Samples of items; None, with the modality masked from now on, where the medium is damaged."""
        name = self.inputs.modalities[column]
        preprocessing = self.inputs.preprocessings[name]
        if isinstance(preprocessing, ItemIdPreprocessing):
            return [preprocessing(index) for index in items]

        if isinstance(preprocessing, FeaturesPreprocessing):
            whole, vectors = self._vectors(column, np.array(items, dtype=np.int64))
            found = iter(vectors)
            return [next(found) if there else None for there in whole.tolist()]

        def decode(index: int) -> Any:
            try:
                raw: Any = self.dataset.read(name, index)
                return preprocessing(raw)
            except MediaError as error:
                return error

        samples = list(self._pool.map(decode, items))
        damaged = {index: found for index, found in zip(items, samples, strict=True) if isinstance(found, MediaError)}
        self._tally(column, len(items), damaged)
        return [None if isinstance(sample, MediaError) else sample for sample in samples]

    def _tally(self, column: int, num_read: int, damaged: Mapping[int, MediaError]) -> None:
        """Count what was read, and mask from now on what of it is damaged, by item."""
        self.present[list(damaged), column] = False
        name = self.inputs.modalities[column]
        named = [f"{name} of item {self.dataset.item_ids[index]}: {error}" for index, error in damaged.items()]
        self._faults.tally(num_read, named)

    def _vectors(self, column: int, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which ready-made vectors are whole, and what preprocessing makes of these. bool (n,), (whole, dim)

        All at once: one by one each would cost more than its encoding.
        """
        name = self.inputs.modalities[column]
        rows = np.asarray(self.dataset.features(name)[items], dtype=np.float32)
        whole = finite_rows(rows)
        damaged = items[~whole].tolist()
        self._tally(column, len(items), {item: MediaError(DAMAGED_VECTOR) for item in damaged})
        preprocessing = self.inputs.preprocessings[name]
        assert isinstance(preprocessing, FeaturesPreprocessing)
        return whole, preprocessing(rows[whole])

    def _stack(self, column: int, name: str) -> None:
        """Turn kept samples of equal shape into one array, so that a batch is one indexing operation."""
        kept = self._kept[name]
        shapes = {np.shape(sample) for sample in kept.values()}
        if len(shapes) != 1 or len(kept) < int(self.present[:, column].sum()):
            return
        items = list(kept)
        rows = np.full(self.dataset.num_items, -1)
        rows[items] = np.arange(len(items))
        table = np.empty((len(items), *shapes.pop()), dtype=kept[items[0]].dtype)
        for row, item in enumerate(items):
            table[row] = kept.pop(item)  # one by one, so that the samples are never there twice
        self._rows[name], self._tables[name] = rows, table


def parts_of(item_idx: np.ndarray, sizes: np.ndarray, max_items: int) -> list[np.ndarray]:
    """Items in parts of about CHUNK_BYTES, one item and ``max_items`` items as the bounds; ``sizes``: bytes of each."""
    windows = (np.cumsum(sizes) - sizes) // CHUNK_BYTES  # of each item's first byte
    parts = np.split(item_idx, np.flatnonzero(np.diff(windows)) + 1) if len(item_idx) else []
    return [part[start : start + max_items] for part in parts for start in range(0, len(part), max_items)]
