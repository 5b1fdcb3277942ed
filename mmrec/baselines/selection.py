"""All baselines that a dataset allows, their few settings chosen by NDCG@10 on the validation part, never on the test.

Legend: T targets of all queries.
"""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mmrec.baselines.content_knn import ContentKNN, centred_features, tf_idf
from mmrec.baselines.ease import EASE, MAX_ITEMS, item_gram
from mmrec.baselines.item_knn import ItemKNN
from mmrec.baselines.mixture import Baseline, Mixture, typical_best
from mmrec.baselines.popularity import Popularity
from mmrec.baselines.sequential_rules import SequentialRules
from mmrec.data.dataset import Dataset
from mmrec.data.sequences import Sequences
from mmrec.data.splits import Queries, Split
from mmrec.metrics.ranking import ranking_metrics
from mmrec.retrieval import block_rows, rank_targets_from_scores

__all__ = ["GRIDS", "FittedBaseline", "fit_baselines", "rank_baseline", "validation_sample"]

logger = logging.getLogger(__name__)

# The first value of each setting is what is taken where there is no validation part to choose on.
GRIDS: dict[str, dict[str, tuple[float, ...]]] = {
    "item_knn": {"shrink": (50, 10, 1), "decay": (0.8, 0.6, 1.0)},
    "ease": {"regularisation": (50, 200), "decay": (0.8, 0.6, 1.0)},
    "sequential_rules": {"window": (3, 1), "shrink": (5, 50), "decay": (0.6, 0.8, 0.4)},
    "content_knn": {"decay": (0.6, 0.8, 0.4, 1.0)},
}
MIXTURE_WEIGHTS = (0.5, 0.2, 0.35, 0.65, 0.8)

# Standard error of HR@10 of .1 over 3000 queries is .005, and settings are compared on the same queries.
_VALIDATION_QUERIES = 3000


@dataclass(frozen=True, kw_only=True)
class FittedBaseline:
    """A baseline, how it was set, and the validation NDCG@10 that chose it (None: nothing to choose on)."""

    baseline: Baseline
    settings: dict[str, float]
    validation: float | None


def fit_baselines(
    dataset: Dataset, split: Split, *, seed: int = 0, progress: Callable[[str], None] = lambda name: None
) -> dict[str, FittedBaseline]:
    """Fit every baseline on the training events.

    popularity and item_knn always; ease up to 20,000 items; sequential_rules and rules_and_knn where histories have an
    order; content_knn where there are feature sets, else texts; content_and_<best of the others> beside it. Of a refit
    split, settings are those that the plain one chose, and the counts those of its own training events.

    Args:
        seed: draws the validation queries that settings are chosen on, if there are more than 3000.
        progress: called with the name of a baseline when it is about to be fitted.
    """
    plain = split.chosen_on or split
    chooser = _Chooser(plain.valid, dataset.num_items, seed)
    content = _content(dataset)
    make = _makers(plain.train, dataset.num_items, content)
    fitted: dict[str, FittedBaseline] = {}
    ordered = plain.train.order != "none"
    grids = GRIDS if ordered else {name: grid | {"decay": (1.0,)} for name, grid in GRIDS.items()}
    order = "sequential_rules" if ordered else "item_knn"
    mixtures = {}
    if ordered:
        mixtures["rules_and_knn"] = ("sequential_rules", "item_knn")
    if content is not None:
        mixtures["rules_and_content" if ordered else "knn_and_content"] = (order, "content_knn")
    for name, maker in make.items():
        progress(name)
        fitted[name] = chooser.best(maker, grids.get(name, {}))
    for name, (first, second) in mixtures.items():
        progress(name)
        fitted[name] = chooser.best_mixture(fitted[first], fitted[second])
    if split.chosen_on is None:
        return fitted
    again = _makers(split.train, dataset.num_items, content)
    refitted = {name: replace(fitted[name], baseline=again[name](**fitted[name].settings)) for name in make}
    for name, (first, second) in mixtures.items():
        mixture = fitted[name].baseline
        assert isinstance(mixture, Mixture), "mixtures are listed apart"
        parts = {"first": refitted[first].baseline, "second": refitted[second].baseline}
        refitted[name] = replace(fitted[name], baseline=replace(mixture, **parts))
    return refitted


def _makers(train: Sequences, num_items: int, content: Any) -> dict[str, Callable[..., Baseline]]:
    """What fits each baseline that the data allow, by name, from its settings."""
    gram = functools.cache(lambda: item_gram(train, num_items))
    ease = functools.lru_cache(1)(lambda regularisation: EASE.fit(gram(), regularisation=regularisation, decay=1.0))
    similar = functools.cache(lambda shrink: ItemKNN.fit(train, num_items, shrink=shrink, decay=1.0))
    makers: dict[str, Callable[..., Baseline]] = {
        "popularity": lambda: Popularity.fit(train, num_items),
        "item_knn": lambda shrink, decay: replace(similar(shrink), decay=decay),
    }
    if num_items <= MAX_ITEMS:
        makers["ease"] = lambda regularisation, decay: replace(ease(regularisation), decay=decay)
    else:
        logger.info(
            "ease is left out: it inverts a matrix of %s items squared; item_knn is its sparse kin", f"{num_items:,}"
        )
    if train.order != "none":
        makers["sequential_rules"] = lambda window, shrink, decay: SequentialRules.fit(
            train, num_items, window=int(window), shrink=shrink, decay=decay
        )
    if content is not None:
        makers["content_knn"] = lambda decay: ContentKNN(content, decay)
    return makers


class _Chooser:
    def __init__(self, valid: Queries, num_items: int, seed: int):
        self.num_items = num_items
        self.valid = valid
        if len(valid) > _VALIDATION_QUERIES:
            self.valid = valid.take(validation_sample(len(valid), seed))

    def best(self, make: Callable[..., Baseline], grid: dict[str, tuple[float, ...]]) -> FittedBaseline:
        candidates = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
        if len(self.valid) == 0 or not grid:
            return FittedBaseline(baseline=make(**candidates[0]), settings=candidates[0], validation=None)
        best: FittedBaseline | None = None
        for settings in candidates:
            baseline = make(**settings)
            value = self._ndcg(rank_baseline(baseline, self.valid, self.num_items))
            if best is None or value > (best.validation or 0.0):
                best = FittedBaseline(baseline=baseline, settings=settings, validation=value)
        assert best is not None
        return best

    def best_mixture(self, first: FittedBaseline, second: FittedBaseline) -> FittedBaseline:
        """Both score each block of queries once, whatever the number of weights."""
        valid, rows = self.valid, block_rows(self.num_items)
        sample = valid.history.take(np.arange(min(len(valid), 500)))
        scales = (1.0, 1.0)
        if len(sample):
            scales = (typical_best(first.baseline, sample), typical_best(second.baseline, sample))
        mixtures = [Mixture(first.baseline, second.baseline, scales, weight) for weight in MIXTURE_WEIGHTS]
        if len(valid) == 0:
            return FittedBaseline(baseline=mixtures[0], settings={"weight": MIXTURE_WEIGHTS[0]}, validation=None)
        ranks: list[list[np.ndarray]] = [[] for _ in mixtures]
        for start in range(0, len(valid), rows):
            part = valid.take(np.arange(start, min(start + rows, len(valid))))
            scores = first.baseline.score(part.history), second.baseline.score(part.history)
            for mixture, found in zip(mixtures, ranks, strict=True):
                mixed = mixture.mix(*scores)
                found.append(rank_targets_from_scores(mixed.__getitem__, part, num_items=self.num_items))
        values = [self._ndcg(np.concatenate(found)) for found in ranks]
        best = int(np.argmax(values))
        settings = {"weight": MIXTURE_WEIGHTS[best]}
        return FittedBaseline(baseline=mixtures[best], settings=settings, validation=values[best])

    def _ndcg(self, ranks: np.ndarray) -> float:
        return float(ranking_metrics(ranks, self.valid.target_offsets, (10,))["ndcg@10"].mean())


def validation_sample(num_queries: int, seed: int) -> np.ndarray:
    """Rows of the validation queries that settings are chosen on: all, or a seeded draw of 3000."""
    if num_queries <= _VALIDATION_QUERIES:
        return np.arange(num_queries)
    return np.sort(np.random.default_rng(seed).choice(num_queries, _VALIDATION_QUERIES, replace=False))


def rank_baseline(
    baseline: Baseline, queries: Queries, num_items: int, progress: Callable[[int], None] | None = None
) -> np.ndarray:
    """Ranks of all targets, with the candidates and the tie rule of :mod:`mmrec.retrieval`. (T,)"""

    def score_block(part: slice) -> np.ndarray:
        return baseline.score(queries.history.take(np.arange(part.start, part.stop)))

    return rank_targets_from_scores(score_block, queries, num_items=num_items, progress=progress)


def _content(dataset: Dataset) -> Any:
    """Unit content vectors of all items, (V, D), or None where the items have neither vectors nor texts."""
    sets = [name for name in dataset.modalities if name in dataset.manifest["features"]]
    if sets:
        values = [np.asarray(dataset.features(name), dtype=np.float32) for name in sets]
        return centred_features(values, [dataset.present(name) for name in sets])
    if "text" not in dataset.modalities:
        return None
    texts = dict(dataset.texts(range(dataset.num_items)))
    return tf_idf([texts.get(idx) for idx in range(dataset.num_items)])
