"""The export of a checkpoint: its model, and the dataset that it was trained on, as the exporter asks for them."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from mmrec.exporter import UserSide
from mmrec.inference import encode_items, graph_writers, use_feature_caches
from mmrec.item_inputs import CatalogInputs
from mmrec.matryoshka import check_width, narrow
from mmrec.model import model_hash
from mmrec.training.evaluation import open_checkpoint, vectors_of_checkpoint

__all__ = ["CheckpointSource"]

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

    @property
    def presence(self) -> np.ndarray:
        """Which modalities the model sees of each item; less when media prove damaged. bool (V, M)"""
        return self.catalog.present

    @property
    def modalities(self) -> tuple[str, ...]:
        return self.model.inputs.modalities

    def encode_items(self, item_idx: np.ndarray) -> np.ndarray:
        """Vectors of the given items, as the model scores them. float32 (n, D)"""
        return narrow(encode_items(self.model, self.catalog, item_idx), self.width).cpu().numpy()

    def extras(self, data: Path, *, blend: bool) -> dict[str, Callable[[Path], object]]:
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


def _device() -> torch.device:
    """The device of this process among those of its machine, if a launcher started several."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
