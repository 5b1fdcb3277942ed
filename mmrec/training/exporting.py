"""The export of a checkpoint: its model, and the dataset that it was trained on, as the exporter asks for them."""

from __future__ import annotations

import functools
import logging
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from mmrec.data.ray_tasks import on_ray, refuse_other_machine
from mmrec.data.sequences import Sequences
from mmrec.data.store import url_of
from mmrec.data.units import package_versions
from mmrec.errors import ConfigError
from mmrec.exporter import ExportReport, Making, UserSide, begin_export
from mmrec.exporter.at_url import ExportAtURL
from mmrec.index.build import IndexConfig
from mmrec.inference import encode_histories, encode_items, graph_writers, use_feature_caches
from mmrec.item_encoder import ItemTokens
from mmrec.item_inputs import CatalogInputs
from mmrec.matryoshka import check_width, narrow
from mmrec.model import model_hash
from mmrec.training.evaluation import open_checkpoint, vectors_of_checkpoint

__all__ = ["CheckpointSource", "ExportJob", "run_job"]

logger = logging.getLogger(__name__)


class CheckpointSource:
    """A checkpoint and its dataset, opened by one process, which encodes what it is asked for alone.

    Processes of a launcher form no group: ranks that wait for each other cannot share parts. A checkpoint has the whole
    table of ids, also of a run that dealt them over its ranks, so that each process can encode every item; a device has
    to hold it.

    Args:
        checkpoint: run folder (its best checkpoint) or checkpoint folder.
        data: the dataset that it was trained on.
        dim: width to which vectors are cut, one that the model was trained at; None: whole.

    Raises: CheckpointError if there is no checkpoint, or it was trained on other data; ConfigError for another width.
    """

    def __init__(self, checkpoint: Path, data: Path, dim: int | None = None) -> None:
        # Each item is encoded once: nothing is kept.
        self.folder, self.dataset, self.model, self.catalog = open_checkpoint(checkpoint, data, cache_bytes=0)
        whole = self.model.config.item_encoder.dim
        self.width = whole if dim is None else dim
        check_width(self.width, self.model.config.matryoshka, whole)
        self.cut = None if self.width == whole else self.width
        self.model_hash = model_hash(self.folder)
        self.user_side = UserSide.of(self.model, self.dataset)
        use_feature_caches(self.model, self.catalog, fill=False)
        self.model.to(_device())
        self.shares = np.zeros((self.dataset.num_items, len(self.modalities)), dtype=np.float16)
        self._items: tuple[np.ndarray, torch.Tensor] | None = None

    @property
    def presence(self) -> np.ndarray:
        """Which modalities the model sees of each item; less when media prove damaged. bool (V, M)"""
        return self.catalog.present

    @property
    def modalities(self) -> tuple[str, ...]:
        return self.model.inputs.modalities

    def encode_items(self, item_idx: np.ndarray) -> np.ndarray:
        """Vectors of the given items, as the model scores them, float32 (n, D); and into ``shares`` what made them."""
        fusion = self.model.item_encoder.fusion

        def watch(items: np.ndarray, tokens: ItemTokens, _: torch.Tensor) -> None:
            self.shares[items] = fusion.shares(tokens.tokens, tokens.mask, tokens.modality).cpu().numpy()

        return narrow(encode_items(self.model, self.catalog, item_idx, watch=watch), self.width).cpu().numpy()

    def encode_users(self, items: np.ndarray, histories: Sequences) -> np.ndarray:
        """Vectors of users after their last event; zero for a user without events. float32 (n, D)

        Models that are told when the next item is asked for are asked for the moment of the dataset's last event.

        Args:
            items: vectors of the whole catalogue. (V, D)
        """
        if self._items is None or self._items[0] is not items:
            self._items = items, torch.from_numpy(items).to(self.model.log_scale.device)
        times, encoder = self.dataset.sequences.timestamps, self.model.user_encoder
        asked = None
        if encoder.query_time and times is not None:
            asked = np.full(len(histories), times.max())
        return encode_histories(encoder, self._items[1], histories, query_times=asked).cpu().numpy()

    def extras(self, data: Path, *, blend: bool) -> dict[str, Callable[[Path], None]]:
        """Writers of further files of an export's ``model``: graphs of its encoders, and a blend; encodes no more."""
        # Graphs are of encoders that read media, and not what is kept of them, on any CPU.
        extras = graph_writers(self.model.cpu(), CatalogInputs(self.dataset, self.model.inputs, cache_bytes=0))
        return extras | (vectors_of_checkpoint(self.folder, data, "valid").blend().writers() if blend else {})

    def warn_of_gaps(self) -> None:
        """Tell of media that proved damaged, and of items that have nothing."""
        if self.catalog.faults:
            logger.warning(
                "%d damaged media were masked; the vectors of their items rest on what is left", self.catalog.faults
            )
        if empty := int((~self.presence.any(1)).sum()):
            logger.warning("%d items have nothing that the model encodes; they share one vector (modalities 0)", empty)


@dataclass(frozen=True, kw_only=True)
class ExportJob:
    """What `mmrec export` was asked for; travels to other processes."""

    checkpoint: Path
    data: Path
    out: Path
    dim: int | None = None
    dtype: str = "float32"
    form: str = "parquet"
    users: bool = False
    index: IndexConfig | None = None
    since: Path | None = None
    blend: bool = False
    shard_items: int = 8192
    overwrite: bool = False

    def begin(self, source: CheckpointSource) -> Making:
        """Begin or join the export."""
        return begin_export(
            source.encode_items,
            source.dataset,
            self.out,
            checkpoint=source.folder,
            model_hash=source.model_hash,
            presence=source.presence,
            modalities=source.modalities,
            shares=source.shares,
            user_side=source.user_side,
            cut=source.cut,
            dtype=self.dtype,
            form=self.form,
            extras=lambda: source.extras(self.data, blend=self.blend),
            encode_users=source.encode_users,
            users=self.users,
            index=self.index,
            since=self.since,
            shard_items=self.shard_items,
            overwrite=self.overwrite,
        )

    def open(self) -> CheckpointSource:
        return CheckpointSource(self.checkpoint, self.data, self.dim)


def run_job(
    job: ExportJob,
    *,
    executor: Literal["local", "ray"] = "local",
    num_workers: int | None = None,
    progress: Callable[[int], AbstractContextManager[Callable[[int], None]]],
) -> ExportReport:
    """Export a checkpoint, in this process or by tasks of a Ray cluster whose machines share all folders.

    Args:
        num_workers: tasks of Ray at once; None: as many as the cluster has CPUs, and as many waiting.
        progress: shows work on so many items; within, it is told the number of items done after each part.

    Raises: as :func:`mmrec.exporter.begin_export` and :class:`CheckpointSource`; ConfigError if Ray is not installed.
    """
    url = url_of(job.out)
    if url is None:
        return _run(job, executor, num_workers, progress)
    if executor != "local" or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(f"{url} is written by one process; several share a folder: give one as --out")
    place = ExportAtURL(url)
    with place.locked():
        place.bring(overwrite=job.overwrite)
        report = _run(replace(job, out=place.local), executor, num_workers, progress)
        place.publish()
    return replace(report, path=job.out)


def _run(
    job: ExportJob,
    executor: str,
    num_workers: int | None,
    progress: Callable[[int], AbstractContextManager[Callable[[int], None]]],
) -> ExportReport:
    source = job.open()
    making = job.begin(source)
    elsewhere = None if executor == "local" else functools.partial(_on_ray, job, num_workers)
    with progress(source.dataset.num_items) as making.progress:
        report = making.run(elsewhere)
    source.warn_of_gaps()
    return report


def _on_ray(job: ExportJob, num_workers: int | None, units: list[str]) -> Iterator[str]:
    places = {name: getattr(job, name) for name in ("checkpoint", "data", "out", "since")}
    absolute = {name: place.resolve() for name, place in places.items() if place and url_of(place) is None}
    job = replace(job, **absolute, overwrite=False)  # the export has begun
    # A task that is done again after its machine was lost goes on with the lease that it had.
    work = functools.partial(_unit_of, job, secrets.token_hex(8), package_versions())
    for unit, _ in on_ray(work, iter(units), num_workers):
        yield unit


def _unit_of(job: ExportJob, token: str, versions: dict[str, str], unit: str) -> None:
    """A unit as a task."""
    places = {"--data": job.data, "--out": job.out, "CHECKPOINT": job.checkpoint}
    refuse_other_machine({option: url_of(place) or str(place) for option, place in places.items()}, versions)
    _begun(job).do(unit, token)


@functools.lru_cache(maxsize=1)
def _begun(job: ExportJob) -> Making:
    """Of a process of Ray, which does one task after another."""
    return job.begin(job.open())


def _device() -> torch.device:
    """The device of this process among those of its machine, if a launcher started several."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
