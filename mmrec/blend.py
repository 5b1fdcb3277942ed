"""A model's scores together with those of a counting baseline: each knows something that the other does not.

Vectors generalise; counts of what followed what remember the single transition that was seen twice. The blend
``user . item + weight * rules(history)[item]`` is a switch of evaluation, export and recommendation, and is reported as
such; the vectors stay what they are.

Legend: Q queries, V items of the catalogue, D model width.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float
from torch import Tensor

from mmrec.baselines.item_knn import ItemKNN
from mmrec.baselines.selection import validation_sample
from mmrec.baselines.sequential_rules import SequentialRules
from mmrec.data.sequences import Sequences
from mmrec.data.splits import Queries, Split
from mmrec.errors import ConfigError
from mmrec.metrics.ranking import ranking_metrics
from mmrec.retrieval import block_rows, rank_targets_from_scores

__all__ = ["Blend", "BlendSettings", "fit_blend", "refit_blend"]

WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
# All combinations are tried, each with all weights, so they are fewer than those of the baselines alone.
GRIDS: dict[str, dict[str, tuple[float, ...]]] = {
    "item_knn": {"shrink": (50, 10, 1), "decay": (0.8, 0.6, 1.0)},
    "transitions": {"window": (3, 1), "shrink": (5, 50), "decay": (0.6, 0.8, 0.4)},
}


@dataclass(frozen=True, kw_only=True)
class BlendSettings:
    """How a blend was set.

    Attributes:
        baseline: transitions, or item_knn where histories are sets.
        weight: of the baseline's scores, beside inner products of unit vectors; 0: the vectors alone were best.
        window, shrink, decay: the baseline's own.
        validation: NDCG@10 on the validation part that chose them.
    """

    baseline: str
    weight: float
    shrink: float
    decay: float
    window: int
    validation: float


@dataclass(frozen=True)
class Blend:
    """``user . item + weight * baseline(history)[item]``."""

    settings: BlendSettings
    baseline: SequentialRules | ItemKNN

    def score_block(
        self, users: Float[Tensor, "Q D"], items: Float[Tensor, "V D"], history: Sequences
    ) -> Callable[[slice], np.ndarray]:
        """Scores of all items for the queries of a slice, float32 (q, V), for :mod:`mmrec.retrieval`."""
        users, items = users.float().cpu(), items.float().cpu()

        def score(part: slice) -> np.ndarray:
            counted = self.baseline.score(history.take(np.arange(part.start, part.stop)))
            return (users[part] @ items.T).numpy() + np.float32(self.settings.weight) * counted

        return score

    def bonus(self, history: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the baseline adds for one history of item indices: the items that it knows of, and their bonus."""
        one = Sequences(
            user_ids=np.array([""]), offsets=np.array([0, len(history)]), item_idx=history.astype(np.int32),
            timestamps=None, split=None, order="position",
        )  # fmt: skip
        scores = self.settings.weight * self.baseline.score(one)[0]
        found = np.flatnonzero(scores)
        return found, scores[found]

    def writers(self) -> dict[str, Callable[[Path], None]]:
        """What writes the files that :meth:`load` reads, by their names."""

        def matrix(path: Path) -> None:
            with path.open("wb") as file:
                sp.save_npz(file, _matrix(self.baseline))

        def settings(path: Path) -> None:
            path.write_text(json.dumps(asdict(self.settings), indent=1))

        return {"blend.npz": matrix, "blend.json": settings}

    @classmethod
    def load(cls, folder: Path) -> Blend:
        """Raises: ConfigError if the folder holds no blend."""
        try:
            settings = BlendSettings(**json.loads((folder / "blend.json").read_text()))
            matrix = sp.csr_matrix(sp.load_npz(folder / "blend.npz"))
        except FileNotFoundError as error:
            raise ConfigError(f"{folder} has no blend; export with --blend") from error
        kind = ItemKNN if settings.baseline == "item_knn" else SequentialRules
        return cls(settings, kind(matrix, settings.decay))


def fit_blend(split: Split, users: Float[Tensor, "Q D"], items: Float[Tensor, "V D"], *, seed: int = 0) -> Blend:
    """Count on the training events; choose settings and weight by NDCG@10 on the validation queries.

    Args:
        users: vectors of the validation queries, all of them.
        items: vectors of the whole catalogue.
        seed: draws the validation queries that count, if there are many.

    Raises: ConfigError if the split has no validation part.
    """
    if not len(split.valid):
        raise ConfigError("a blend is chosen on validation events, of which this split has none")
    rows = validation_sample(len(split.valid), seed)
    valid, vectors = split.valid.take(rows), (users[rows].float().cpu(), items.float().cpu())
    ordered = split.train.order != "none"
    name = "transitions" if ordered else "item_knn"
    grid: dict[str, tuple[float, ...]] = {"window": (0,), **GRIDS[name]} | ({} if ordered else {"decay": (1.0,)})
    best: Blend | None = None
    for values in itertools.product(*grid.values()):
        chosen: dict[str, Any] = dict(zip(grid, values, strict=True))
        baseline = _fit(split, len(items), chosen, ordered)
        for weight, found in zip(WEIGHTS, _validate(baseline, vectors, valid), strict=True):
            if best is None or found > best.settings.validation:
                settings = BlendSettings(baseline=name, weight=weight, validation=found, **chosen)
                best = Blend(settings, baseline)
    assert best is not None
    return best


def refit_blend(settings: BlendSettings, split: Split, num_items: int) -> Blend:
    """The same settings with counts of other training events."""
    chosen = {"window": settings.window, "shrink": settings.shrink, "decay": settings.decay}
    return Blend(settings, _fit(split, num_items, chosen, settings.baseline == "transitions"))


def _fit(split: Split, num_items: int, settings: dict[str, Any], ordered: bool) -> SequentialRules | ItemKNN:
    if ordered:
        return SequentialRules.fit(split.train, num_items, **{**settings, "window": int(settings["window"])})
    return ItemKNN.fit(split.train, num_items, shrink=settings["shrink"], decay=settings["decay"])


def _validate(baseline: SequentialRules | ItemKNN, vectors: tuple[Tensor, Tensor], valid: Queries) -> list[float]:
    """NDCG@10 for each weight; vectors of the queries and of the catalogue, of which a block of scores is held."""
    users, items = vectors
    num_items, ranks = len(items), [[] for _ in WEIGHTS]
    rows = block_rows(num_items)
    for start in range(0, len(valid), rows):
        part = valid.take(np.arange(start, min(start + rows, len(valid))))
        counted = baseline.score(part.history)
        inner = (users[start : start + len(part)] @ items.T).numpy()
        for weight, found in zip(WEIGHTS, ranks, strict=True):
            scores = inner + np.float32(weight) * counted
            found.append(rank_targets_from_scores(scores.__getitem__, part, num_items=num_items))
    return [
        float(ranking_metrics(np.concatenate(found), valid.target_offsets, (10,))["ndcg@10"].mean()) for found in ranks
    ]


def _matrix(baseline: SequentialRules | ItemKNN) -> Any:
    return baseline.rules if isinstance(baseline, SequentialRules) else baseline.similarity
