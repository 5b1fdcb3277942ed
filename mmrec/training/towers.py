"""When the towers of raw media rest, when they learn, and from how many items of a step."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mmrec.distributed import rank, world_size
from mmrec.inference import use_tower_outputs
from mmrec.item_inputs import CatalogInputs
from mmrec.modality_encoders.tower import TowerEncoder
from mmrec.model import Recommender
from mmrec.training.checkpoint import RunState
from mmrec.training.config import TrainConfig

__all__ = ["TOWER_OUTPUTS", "TowerSchedule"]

logger = logging.getLogger(__name__)

TOWER_OUTPUTS = "tower_outputs.pt"


class TowerSchedule:
    """The towers of a model through a run: at rest, then learning from all items of a step or from a sample of them.

    At rest, and where they learn from a sample, the catalogue gives their outputs in place of the media: at rest these
    are exact, with a sample they are those of the end of the last epoch.

    Args:
        config: of the run.
        model: whose towers they are; not wrapped.
        catalog: gives media or outputs.
        state: of the run; towers without a rest are noted as awake from the start.
    """

    def __init__(self, config: TrainConfig, model: Recommender, catalog: CatalogInputs, state: RunState) -> None:
        self.config, self.model, self.catalog, self.state = config, model, catalog, state
        encoders = model.item_encoder.encoders.items()
        towers = {name: encoder for name, encoder in encoders if isinstance(encoder, TowerEncoder)}
        self.learners = {name: tower for name, tower in towers.items() if next(tower.tower_parameters(), None)}
        if not self.learners or not config.rest_epochs:
            state.tower_epoch = state.tower_step = 0
        self._require_gradients(not self.resting)

    @property
    def resting(self) -> bool:
        """Whether the towers do not learn yet."""
        return self.state.tower_epoch < 0

    @property
    def sampled(self) -> bool:
        """Whether the towers learn now, from a sample of each step's items."""
        return bool(self.config.tower_items and self.learners) and not self.resting

    @property
    def read_whole_steps(self) -> bool:
        """Whether the towers learn now, from all items of each step."""
        return bool(self.learners) and not self.resting and not self.sampled

    def wake(self) -> None:
        """From here on the towers learn."""
        self.state.tower_epoch, self.state.tower_step = self.state.epoch, self.state.step
        if rank() == 0:
            logger.info("epoch %d  the towers of raw media learn from here on", self.state.epoch)
        if not self.sampled:
            self.catalog.use_media()
        self._require_gradients(True)

    def have_rested(self, out_of_patience: bool) -> bool:
        """Whether, between two epochs, it is time for resting towers to learn."""
        state, config = self.state, self.config
        if state.step_in_epoch or not self.resting or not config.tower_epochs:
            return False
        return out_of_patience or state.epoch >= config.rest_epochs

    def last_epoch(self) -> int:
        """The number of epochs after which training ends at the latest."""
        config, state = self.config, self.state
        if not self.learners:
            return config.max_epochs
        return min(config.max_epochs, config.rest_epochs if self.resting else state.tower_epoch + config.tower_epochs)

    def num_to_encode(self) -> int:
        """Media of which this rank will compute outputs before it can train."""
        if not (self.resting or self.sampled):
            return 0
        columns = [self.model.item_encoder.columns[name] for name in self.learners]
        return int(self.catalog.present[:, columns].sum()) // world_size()

    def renew_outputs(self, progress: Callable[[int], None] | None = None) -> None:
        """Let the catalogue give what the towers, as they are now, make of all media; nothing where it gives media."""
        if self.resting or self.sampled:
            use_tower_outputs(self.model, self.catalog, renew=self.learners, progress=progress)

    def kept_outputs(self) -> dict[str, Any]:
        """Outputs that a run resumed within an epoch could not compute again; new ones are new tensors."""
        return self.catalog.kept_features(self.learners)

    def load_outputs(self, path: Path) -> None:
        """Give what :meth:`kept_outputs` gave."""
        for name, (item_idx, features, mask) in torch.load(path, weights_only=True).items():
            self.catalog.use_features(name, item_idx.numpy(), features, mask)

    def _require_gradients(self, learn: bool) -> None:
        for tower in self.learners.values():
            for parameter, _ in tower.tower_parameters():
                parameter.requires_grad_(learn)
