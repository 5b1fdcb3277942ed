"""Vectors from a trained recommender: of the whole catalogue, and of users from their histories.

Legend: V items of the catalogue, Q histories, D model width.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from mmrec.batch import SequenceBatch
from mmrec.data.feature_cache import FeatureCache
from mmrec.data.sequences import Sequences, pack, ragged_range
from mmrec.distributed import dealt_in_turn, gather_dealt, rank, world_size
from mmrec.item_encoder import ItemEncoder, ItemTokens
from mmrec.item_inputs import CatalogInputs, parts_of
from mmrec.matryoshka import narrow, widen
from mmrec.modality_encoders.foundation import FoundationEncoder
from mmrec.modality_encoders.foundation.preprocessing import FoundationPreprocessing
from mmrec.modality_encoders.graph import graph_writer
from mmrec.modality_encoders.tower import TowerEncoder
from mmrec.model import Recommender
from mmrec.user_encoders import UserEncoder

__all__ = [
    "calibrate",
    "encode_catalog",
    "encode_histories",
    "encode_history",
    "encode_items",
    "encode_views",
    "graph_writers",
    "use_feature_caches",
    "use_tower_outputs",
    "vectors_of_view",
]

# Items that are encoded at once, at most.
CHUNK_ITEMS = 512
# Items of a part of a feature cache: what an interrupted run loses at most.
CACHE_PART = 512
# Media that a frozen network reads at once, at most; more of texts, of which it reads those of similar length together.
CACHE_CHUNK, CACHE_CHUNK_TEXTS = 32, 256


@torch.inference_mode()
def encode_catalog(
    model: Recommender,
    catalog: CatalogInputs,
    item_idx: np.ndarray,
    *,
    chunk: int = CHUNK_ITEMS,
    progress: Callable[[int], None] | None = None,
    watch: Callable[[np.ndarray, ItemTokens, Tensor], None] | None = None,
) -> Tensor:
    """Unit vectors of the given items, ("items", "D") float32, on the model's device.

    Each rank encodes a share and all receive everything; as in :func:`encode_items`.
    """
    homes = torch.from_numpy(item_idx % world_size())
    owner = homes if model.item_encoder.items_have_homes else dealt_in_turn(len(item_idx))
    mine = item_idx[owner.numpy() == rank()]
    return gather_dealt(encode_items(model, catalog, mine, chunk=chunk, progress=progress, watch=watch), owner)


@torch.inference_mode()
def encode_items(
    model: Recommender,
    catalog: CatalogInputs,
    item_idx: np.ndarray,
    *,
    chunk: int = CHUNK_ITEMS,
    progress: Callable[[int], None] | None = None,
    watch: Callable[[np.ndarray, ItemTokens, Tensor], None] | None = None,
) -> Tensor:
    """Unit vectors of the given items, ("items", "D") float32, on the model's device, by this process alone.

    Args:
        chunk: items encoded at once, at most; fewer where their media are large.
        progress: called with the number of items done after each chunk.
        watch: called with the items of each chunk that this rank encoded, their tokens and their vectors.
    """
    device = model.log_scale.device
    was_training = model.training
    model.eval()
    parts = [torch.zeros(0, model.config.item_encoder.dim, device=device)]
    for part in catalog.chunks(item_idx, chunk):
        tokens = model.item_encoder.tokens(catalog.batch(part).to(device))
        parts.append(F.normalize(model.item_encoder.fuse(tokens), dim=-1).float())
        if watch:
            watch(part, tokens, parts[-1])
        if progress:
            progress(len(part))
    model.train(was_training)
    return torch.cat(parts)


@torch.inference_mode()
def encode_views(
    model: Recommender,
    catalog: CatalogInputs,
    item_idx: np.ndarray,
    views: Sequence[Collection[str]],
) -> Tensor:
    """Unit vectors of the given items as each view sees them, ("views", "items", "D") float32, on one process.

    Each modality is encoded once, whatever the number of views; an item of which a view shows nothing gets the vector
    of an item that has nothing.

    Args:
        views: names of the modalities that a view shows.
    """
    device = model.log_scale.device
    was_training = model.training
    model.eval()
    vectors = torch.zeros(len(views), len(item_idx), model.item_encoder.dim, device=device)
    done = 0
    for items in catalog.chunks(item_idx, CHUNK_ITEMS):
        tokens = model.item_encoder.tokens(catalog.batch(items).to(device))
        for vector, view in zip(vectors, views, strict=True):
            vector[done : done + len(items)] = vectors_of_view(model.item_encoder, tokens, view)
        done += len(items)
    model.train(was_training)
    return vectors


def vectors_of_view(encoder: ItemEncoder, tokens: ItemTokens, view: Collection[str]) -> Tensor:
    """Unit vectors of items of which only some modalities are shown, ("I", "D") float32."""
    shown = torch.tensor([encoder.columns[name] for name in view], device=tokens.mask.device)
    seen = replace(tokens, mask=tokens.mask & torch.isin(tokens.modality, shown))
    return F.normalize(encoder.fuse(seen), dim=-1).float()


def graph_writers(model: Recommender, catalog: CatalogInputs) -> dict[str, Callable[[Path], None]]:
    """What writes each encoder of raw media that has a graph, by the file's path in an export's ``model``."""
    writers: dict[str, Callable[[Path], None]] = {}
    for name, encoder in model.item_encoder.encoders.items():
        if not isinstance(encoder, TowerEncoder):
            continue
        column = model.item_encoder.columns[name]
        batches: list[dict[str, Tensor]] = []
        for item in np.flatnonzero(catalog.present[:, column]):
            batch = catalog.batch(np.array([item]))
            if name in batch.inputs:  # else the medium proved damaged
                batches.append(batch.inputs[name])
            if len(batches) == 2:
                break
        writer = graph_writer(encoder, batches[0], batches[-1]) if batches else None
        if writer is not None:
            writers[f"graphs/{name}.pt"] = writer
    return writers


@torch.no_grad()
def use_tower_outputs(
    model: Recommender,
    catalog: CatalogInputs,
    *,
    renew: Collection[str] = (),
    progress: Callable[[int], None] | None = None,
) -> None:
    """Run every tower once over the items that have its modality, and let ``catalog`` give the outputs from now on.

    As long as the towers do not learn, an item then costs its heads and fusion only. Each rank computes a share.

    Args:
        renew: modalities whose outputs are computed again where they are kept already.
        progress: called with the number of media done after each chunk.
    """
    device = model.log_scale.device
    was_training = model.training
    model.eval()
    for name, encoder in model.item_encoder.encoders.items():
        items = np.flatnonzero(catalog.present[:, model.item_encoder.columns[name]])
        kept = catalog.gives_features(name) or (name not in renew and catalog.kept_features([name]))
        if not isinstance(encoder, TowerEncoder) or not len(items) or kept:
            continue
        mine = items[rank() :: world_size()]
        # A rank without items still learns the shape from one.
        found = _tower_outputs(encoder, catalog, name, mine if len(mine) else items[:1], device, progress)
        owner = dealt_in_turn(len(items))
        features, mask = (gather_dealt(part[: len(mine)], owner).cpu() for part in found)
        catalog.use_features(name, items, features, mask)
    model.train(was_training)


def _tower_outputs(
    encoder: TowerEncoder,
    catalog: CatalogInputs,
    name: str,
    items: np.ndarray,
    device: torch.device,
    progress: Callable[[int], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """What a tower makes of the media of some items, and the mask, on its device; damaged media are left out."""
    parts = []
    for part in catalog.chunks(items, CHUNK_ITEMS, media=name):
        inputs = {key: value.to(device) for key, value in catalog.media(name, part).items()}
        if inputs:
            features, mask = encoder.features(inputs)
            parts.append((features.float(), mask))
        if progress:
            progress(len(part))
    features, mask = (
        (torch.cat(part) for part in zip(*parts, strict=True)) if parts else (torch.zeros(0), torch.zeros(0))
    )
    return features, mask


@torch.no_grad()
def calibrate(model: Recommender, catalog: CatalogInputs, item_idx: np.ndarray) -> None:
    """Let the content's untrained encoders look at some training items, a part of the media in memory at a time."""
    was_training, device = model.training, model.log_scale.device
    model.eval()
    inputs: dict[str, dict[str, Tensor]] = {}
    for name in model.item_encoder.content:
        encoder = model.item_encoder.encoders[name]
        items = item_idx[catalog.present[item_idx, model.item_encoder.columns[name]]]
        if isinstance(encoder, FoundationEncoder) and not catalog.gives_features(name):
            features, mask = _tower_outputs(encoder, catalog, name, items, device)
            found = {"features": features, "mask": mask} if len(features) else {}
        else:
            found = {key: value.to(device) for key, value in catalog.media(name, items).items()}
        if found:
            inputs[name] = found
    model.item_encoder.calibrate(inputs)
    model.train(was_training)


def use_feature_caches(
    model: Recommender, catalog: CatalogInputs, *, fill: bool, progress: Callable[[str, int, int], None] | None = None
) -> None:
    """Let ``catalog`` give what the frozen parts of foundation encoders make of the media, from the disk.

    Args:
        fill: encode what is not there yet, each rank a share; else a modality is used only if all of it is there.
        progress: called with what is done, the number of media done since the last call, and the number to do.
    """
    for name, encoder in model.item_encoder.encoders.items():
        if not isinstance(encoder, FoundationEncoder) or encoder.keeps is None:
            continue
        preprocessing = model.inputs.preprocessings[name]
        assert isinstance(preprocessing, FoundationPreprocessing)
        cache = FeatureCache(catalog.dataset, name, encoder.cache_key())
        items = np.flatnonzero(catalog.present[:, model.item_encoder.columns[name]])
        if not fill and len(cache.missing(items)):
            continue
        mine = cache.missing(items[rank() :: world_size()])  # a share that does not hang on what others have done yet
        most = CACHE_CHUNK_TEXTS if preprocessing.brings_inputs else CACHE_CHUNK
        num_bytes = sum(values.nbytes for values in preprocessing.blank(1).values())
        chunks = parts_of(mine, np.full(len(mine), num_bytes), most)
        for done in _fill(cache, encoder, name, catalog, chunks, model.log_scale.device):
            if progress:
                progress(f"encoding {name} once", done, len(mine))
        if world_size() > 1:
            dist.barrier()
        cache.refresh()
        catalog.use_cache(name, cache, encoder.keeps, brings_inputs=preprocessing.brings_inputs)


def _fill(
    cache: FeatureCache,
    encoder: FoundationEncoder,
    name: str,
    catalog: CatalogInputs,
    chunks: list[np.ndarray],
    device: torch.device,
) -> Iterator[int]:
    """Encode media part by part, the next chunk decoded meanwhile; yields the number of media done."""
    items: list[int] = []
    unreadable: list[int] = []  # kept as nothing, so that nobody tries again
    rows: list[np.ndarray] = []
    with ThreadPoolExecutor(1) as ahead:
        pending = [ahead.submit(catalog.samples_once, name, chunk) for chunk in chunks[:1]]
        for number, chunk in enumerate(chunks):
            found, inputs = pending.pop().result()
            pending = [ahead.submit(catalog.samples_once, name, later) for later in chunks[number + 1 : number + 2]]
            if len(found):
                kept = encoder.keep({key: value.to(device) for key, value in inputs.items()})
                items += found.tolist()
                rows += [values.to(encoder.cache_dtype).cpu().numpy() for values in kept]
            unreadable += np.setdiff1d(chunk, found).tolist()
            if len(rows) >= CACHE_PART or number == len(chunks) - 1:
                nothing = rows[0][:0] if rows else np.zeros(0, dtype=np.float32)
                cache.write(np.array(items + unreadable), [*rows, *[nothing] * len(unreadable)])
                items, rows, unreadable = [], [], []
            yield len(chunk)


def encode_history(
    user_encoder: UserEncoder, vectors: Tensor, timestamps: np.ndarray | None = None, *, query_time: int | None = None
) -> Tensor:
    """Unit vector of one user after the given items, ("D",) float32.

    Args:
        vectors: of the items taken, oldest first. ("L", "D")
        timestamps: when they were taken, seconds since 1970, for encoders that read times. int64 (L,)
        query_time: when the next item is asked for, for encoders that are told.

    Raises: ConfigError if the encoder needs times that are not given.
    """
    history = Sequences(
        user_ids=np.array(["query"]),
        offsets=pack(np.array([len(vectors)])),
        item_idx=np.arange(len(vectors), dtype=np.int32),
        timestamps=timestamps,
        split=None,
        order="position" if timestamps is None else "timestamp",
    )
    asked = None if query_time is None else np.array([query_time])
    return encode_histories(user_encoder, vectors, history, query_times=asked)[0]


@torch.inference_mode()
def encode_histories(
    user_encoder: UserEncoder,
    vectors: Tensor,
    history: Sequences,
    *,
    query_times: np.ndarray | None = None,
    chunk_events: int = 32_768,
) -> Tensor:
    """Unit vectors of users after the last event of each history, ("Q", "D") float32.

    A history without events has nothing to go on: its vector is zero, every item scores the same, and the tie rule
    gives it the rank of chance.

    Args:
        vectors: vectors of the whole catalogue, of the model's width or one that it was trained at. ("V", "D")
        history: the known events; only the last ``max_length`` are read.
        query_times: when each history's next item is asked for, for encoders that are told. ("Q",)
        chunk_events: events encoded at once, one history at least, so that memory does not grow with the lengths.
    """
    was_training = user_encoder.training
    user_encoder.eval()
    users = torch.zeros(len(history), vectors.shape[1], device=vectors.device)
    filled = np.flatnonzero(history.lengths)
    num_read = np.minimum(history.lengths[filled], user_encoder.max_length)
    chunks = (np.cumsum(num_read) - num_read) // chunk_events  # of each history's first event
    for rows in np.split(filled, np.flatnonzero(np.diff(chunks)) + 1) if len(filled) else ():
        batch = _last_events(history, rows, user_encoder.max_length, query_times).to(vectors.device)
        events = widen(vectors[batch.item_idx], user_encoder.dim)
        after = narrow(F.normalize(user_encoder(events, batch), dim=-1), vectors.shape[1])
        users[torch.from_numpy(rows).to(vectors.device)] = after[batch.offsets[1:] - 1].float()
    user_encoder.train(was_training)
    return users


def _last_events(
    history: Sequences, rows: np.ndarray, max_length: int, query_times: np.ndarray | None
) -> SequenceBatch:
    stops = history.offsets[rows + 1]
    starts = np.maximum(history.offsets[rows], stops - max_length)
    events = ragged_range(starts, stops - starts)
    offsets = pack(stops - starts)
    times = None if history.timestamps is None else torch.from_numpy(history.timestamps[events].astype(np.int64))
    asked = None
    if times is not None and query_times is not None:  # of the last event; the others are followed by the next one
        asked = torch.cat([times[1:], times[:1]])
        asked[offsets[1:] - 1] = torch.from_numpy(query_times[rows].astype(np.int64))
    return SequenceBatch(
        item_idx=torch.from_numpy(history.item_idx[events].astype(np.int64)),
        offsets=torch.from_numpy(offsets),
        timestamps=times,
        query_times=asked,
    )
