"""All baselines that a dataset allows, their few settings chosen by NDCG@10 on the validation part, never on the test.

Wide, regular grids and three forms of the mixture leave the choice to validation. (Measured 2026-11-26: of the forms it
takes "deviations" on Amazon Beauty and "typical_best" on Amazon Scientific.) The grids themselves, the order in which
they are searched, and that a mixture takes one method of each kind, were settled with test values of Amazon Scientific
in view; for other data they are what they are.

Legend: T targets of all queries.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mmrec.baselines.als import ImplicitALS
from mmrec.baselines.content_knn import ContentKNN, centred_features, content_vectors
from mmrec.baselines.ease import EASE, MAX_ITEMS, item_gram
from mmrec.baselines.item_knn import ItemKNN
from mmrec.baselines.mixture import FORMS, Baseline, Form, Mixture, mix, on_one_scale, typical_best
from mmrec.baselines.popularity import Popularity
from mmrec.baselines.sequential_rules import SequentialRules
from mmrec.data.dataset import Dataset
from mmrec.data.sequences import Sequences
from mmrec.data.splits import Queries, Split
from mmrec.metrics.ranking import ranking_metrics
from mmrec.retrieval import block_rows, rank_targets_from_scores

__all__ = ["GRIDS", "FittedBaseline", "fit_baselines", "left_out", "rank_baseline", "validation_sample"]

_SHRINK = (10, 1, 2, 5, 20, 50, 100, 200)
_DECAY = (0.8, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.9, 1.0)
# Where the search begins, and all that is taken where there is no validation part to choose on, is the first value.
GRIDS: dict[str, dict[str, tuple[float, ...]]] = {
    "recent_popularity": {"window_days": (30, 7, 1, 90, 365)},
    "item_knn": {"shrink": _SHRINK, "decay": _DECAY},
    "ease": {"decay": _DECAY, "regularisation": (50, 200)},  # an inverse for each regularisation: few, and last
    "implicit_als": {"factors": (64,), "unobserved": (0.02, 0.1), "regularisation": (0.01, 0.002, 0.05)},
    "sequential_rules": {"window": (3, 1, 2, 5, 10), "shrink": _SHRINK, "decay": _DECAY},
    "transitions": {"window": (3, 1, 2, 5, 10), "shrink": _SHRINK, "decay": _DECAY},
    "content_knn": {"decay": _DECAY},
}
# Baselines that know the same kind of thing; a mixture takes the best of each kind.
KINDS: dict[str, tuple[str, ...]] = {
    "popular": ("popularity", "recent_popularity"),
    "taken together": ("item_knn", "ease", "implicit_als"),
    "taken in order": ("sequential_rules", "transitions"),
    "alike": ("content_knn",),
}
# Weights of a mixture are multiples of the first step; then a second step is moved from one part to another.
_STEPS = (0.2, 0.1)

# Standard error of HR@10 of .1 over 3000 queries is .005, and settings are compared on the same queries.
_VALIDATION_QUERIES = 3000


@dataclass(frozen=True, kw_only=True)
class FittedBaseline:
    """A baseline, how it was set, the validation NDCG@10 that chose it (None: nothing to choose on), and the seconds of
    the clock that fitting and choosing took."""

    baseline: Baseline
    settings: dict[str, Any]
    validation: float | None
    seconds: float


Progress = Callable[[str, int, bool], None]
"""Told the name of a baseline, how many settings of it have been tried, and whether that is all."""


def fit_baselines(
    dataset: Dataset, split: Split, *, seed: int = 0, progress: Progress = lambda *_: None
) -> dict[str, FittedBaseline]:
    """Fit every baseline on the training events.

    popularity, item_knn and implicit_als always; recent_popularity where there are timestamps; ease up to 20,000 items;
    sequential_rules (by confidence) and transitions (by cosine) where histories have an order; content_knn where there
    are feature sets, else texts, and content_knn_<name> for each feature set if there are several; best_mixture of the
    best of each kind. Of a refit split, settings are those that the plain one chose, and the counts those of its own
    training events.

    Args:
        seed: draws the validation queries that settings are chosen on, if there are more than 3000.
        progress: called before each setting that is tried, and when a baseline is fitted.
    """
    plain = split.chosen_on or split
    chooser = _Chooser(plain.valid, dataset.num_items, seed)
    contents = _contents(dataset)
    make = _makers(plain.train, dataset.num_items, contents)
    grids = {name: GRIDS["content_knn" if name in contents else name] for name in make if name != "popularity"}
    if plain.train.order == "none":
        grids = {name: grid | ({"decay": (1.0,)} if "decay" in grid else {}) for name, grid in grids.items()}
    fitted: dict[str, FittedBaseline] = {}
    for name, maker in make.items():
        fitted[name] = chooser.best(maker, grids.get(name, {}), functools.partial(progress, name))
    mixture, names = chooser.best_mixture(fitted, functools.partial(progress, "best_mixture"))
    if split.chosen_on is not None:
        again = _makers(split.train, dataset.num_items, contents)
        fitted = {name: _refitted(one, again[name]) for name, one in fitted.items()}
        assert isinstance(mixture.baseline, Mixture), "it was made as one"
        parts = tuple(fitted[name].baseline for name in names)
        mixture = replace(mixture, baseline=replace(mixture.baseline, parts=parts))
    return fitted | {"best_mixture": mixture}


def _refitted(one: FittedBaseline, make: Callable[..., Baseline]) -> FittedBaseline:
    started = time.perf_counter()
    return replace(one, baseline=make(**one.settings), seconds=one.seconds + time.perf_counter() - started)


def left_out(dataset: Dataset, split: Split) -> dict[str, str]:
    """Baselines that the data do not allow, each with the reason and what to look at in its place."""
    reasons = {}
    if dataset.num_items > MAX_ITEMS:
        reasons["ease"] = (
            f"it inverts a matrix of {dataset.num_items:,} items squared "
            f"({dataset.num_items**2 * 4 / 2**30:,.0f} GiB; at most {MAX_ITEMS:,} items); item_knn is its sparse kin"
        )
    if split.train.order == "none":
        reasons["sequential_rules, transitions"] = "histories have no order; item_knn"
    if split.train.timestamps is None:
        reasons["recent_popularity"] = "interactions have no timestamps; popularity"
    if not _contents(dataset):
        reasons["content_knn"] = "items have neither feature sets nor texts"
    return reasons


def _contents(dataset: Dataset) -> dict[str, Any]:
    """Content vectors of all items by the name of the baseline that reads them."""
    together = content_vectors(dataset)
    found = {} if together is None else {"content_knn": together}
    sets = [name for name in dataset.modalities if name in dataset.manifest["features"]]
    if len(sets) > 1:
        for name in sets:
            values = np.asarray(dataset.features(name), dtype=np.float32)
            found[f"content_knn_{name}"] = centred_features([values], [dataset.present(name)])
    return found


def _makers(train: Sequences, num_items: int, contents: dict[str, Any]) -> dict[str, Callable[..., Baseline]]:
    """What fits each baseline that the data allow, by name, from its settings."""
    gram = functools.cache(lambda: item_gram(train, num_items))
    ease = functools.lru_cache(1)(lambda regularisation: EASE.fit(gram(), regularisation=regularisation, decay=1.0))
    similar = functools.lru_cache(1)(lambda shrink: ItemKNN.fit(train, num_items, shrink=shrink, decay=1.0))

    @functools.lru_cache(1)
    def rules(normalise: Any, window: float, shrink: float) -> SequentialRules:
        return SequentialRules.fit(train, num_items, window=int(window), shrink=shrink, decay=1.0, normalise=normalise)

    makers: dict[str, Callable[..., Baseline]] = {"popularity": lambda: Popularity.fit(train, num_items)}
    if train.timestamps is not None:
        makers["recent_popularity"] = lambda window_days: Popularity.fit_recent(
            train, num_items, window_days=window_days
        )
    makers["item_knn"] = lambda shrink, decay: replace(similar(shrink), decay=decay)
    if num_items <= MAX_ITEMS:
        makers["ease"] = lambda regularisation, decay: replace(ease(regularisation), decay=decay)
    makers["implicit_als"] = lambda factors, unobserved, regularisation: ImplicitALS.fit(
        train, num_items, factors=int(factors), unobserved=unobserved, regularisation=regularisation
    )
    if train.order != "none":
        for name, normalise in (("sequential_rules", "confidence"), ("transitions", "cosine")):
            makers[name] = lambda window, shrink, decay, normalise=normalise: replace(
                rules(normalise, window, shrink), decay=decay
            )
    for name, content in contents.items():
        makers[name] = lambda decay, content=content: ContentKNN(content, decay)
    return makers


class _Chooser:
    def __init__(self, valid: Queries, num_items: int, seed: int):
        self.num_items = num_items
        self.valid = valid
        if len(valid) > _VALIDATION_QUERIES:
            self.valid = valid.take(validation_sample(len(valid), seed))

    def best(
        self, make: Callable[..., Baseline], grid: dict[str, tuple[float, ...]], tell: Callable[[int, bool], None]
    ) -> FittedBaseline:
        """The best settings that a search finds which changes one at a time, to any of its values, until none helps."""
        started = time.perf_counter()
        settings = {name: values[0] for name, values in grid.items()}
        tried: set[tuple[float, ...]] = set()
        best, value = None, -1.0

        def attempt(candidate: dict[str, float]) -> None:
            nonlocal best, settings, value
            point = tuple(candidate.values())
            if point in tried:
                return
            tell(len(tried), False)
            tried.add(point)
            baseline = make(**candidate)
            found = self._ndcg(rank_baseline(baseline, self.valid, self.num_items)) if len(self.valid) else 0.0
            if found > value:
                best, settings, value = baseline, candidate, found

        attempt(settings)
        improving = len(self.valid) > 0
        while improving:
            before = value
            for name in grid:
                for choice in grid[name]:
                    attempt({**settings, name: choice})
            improving = value > before
        tell(len(tried), True)
        assert best is not None, "the first settings are better than none"
        chosen = value if len(self.valid) else None
        return FittedBaseline(
            baseline=best, settings=settings, validation=chosen, seconds=time.perf_counter() - started
        )

    def best_mixture(
        self, fitted: dict[str, FittedBaseline], tell: Callable[[int, bool], None]
    ) -> tuple[FittedBaseline, tuple[str, ...]]:
        """The best of each kind in the best form, at the best weights, some of which may be 0.

        Returns: the mixture, and the names of its parts.
        """
        started = time.perf_counter()
        kinds = [
            [name for name in fitted if any(name.startswith(one) for one in members)] for members in KINDS.values()
        ]
        order = [max(names, key=lambda name: fitted[name].validation or 0.0) for names in kinds if names]
        sample = self.valid.history.take(np.arange(min(len(self.valid), 500)))
        scales = {name: typical_best(fitted[name].baseline, sample) if len(sample) else 1.0 for name in order}
        best, value, form = dict.fromkeys(order, 1 / len(order)), None, FORMS[0]
        tried = 0
        tell(tried, False)
        for step in _STEPS if len(self.valid) else ():
            candidates = _grid(order, step) if value is None else _moved(best, step)
            found = []
            for one in FORMS if value is None else (form,):
                found.append(self._best_weights(fitted, scales, candidates, one))
                tried += len(candidates)
                tell(tried, False)
            best, value, form = max(found, key=lambda weighted: weighted[1])
        tell(tried, True)
        best = {name: round(weight, 3) for name, weight in best.items() if weight > 1e-6}
        parts = tuple(fitted[name].baseline for name in best)
        mixture = Mixture(parts, tuple(scales[name] for name in best), tuple(best.values()), form)
        seconds = time.perf_counter() - started
        settings: dict[str, Any] = {"form": form, **best}
        return FittedBaseline(baseline=mixture, settings=settings, validation=value, seconds=seconds), tuple(best)

    def _best_weights(
        self,
        fitted: dict[str, FittedBaseline],
        scales: dict[str, float],
        candidates: list[dict[str, float]],
        form: Form,
    ) -> tuple[dict[str, float], float, Form]:
        """Each baseline scores each block of queries once, whatever the number of candidates."""
        valid, rows = self.valid, block_rows(self.num_items)
        ranks: list[list[np.ndarray]] = [[] for _ in candidates]
        for start in range(0, len(valid), rows):
            part = valid.take(np.arange(start, min(start + rows, len(valid))))
            scores = {
                name: on_one_scale(fitted[name].baseline.score(part.history), scale, form)
                for name, scale in scales.items()
            }
            for weights, found in zip(candidates, ranks, strict=True):
                names = [name for name, weight in weights.items() if weight]
                mixed = mix([scores[n] for n in names], [weights[n] for n in names])
                found.append(rank_targets_from_scores(mixed.__getitem__, part, num_items=self.num_items))
        values = [self._ndcg(np.concatenate(found)) for found in ranks]
        best = int(np.argmax(values))
        return candidates[best], values[best], form

    def _ndcg(self, ranks: np.ndarray) -> float:
        return float(ranking_metrics(ranks, self.valid.target_offsets, (10,))["ndcg@10"].mean())


def _grid(names: list[str], step: float) -> list[dict[str, float]]:
    """All weights that are multiples of ``step`` and are 1 together."""
    units = round(1 / step)
    counts = itertools.product(range(units + 1), repeat=len(names))
    return [dict(zip(names, (n * step for n in row), strict=True)) for row in counts if sum(row) == units]


def _moved(weights: dict[str, float], step: float) -> list[dict[str, float]]:
    """The weights as they are, and with ``step`` moved from any part that has it to any other."""
    moves = [(a, b) for a, b in itertools.permutations(weights, 2) if weights[a] > step - 1e-6]
    return [weights, *({**weights, a: max(0.0, weights[a] - step), b: weights[b] + step} for a, b in moves)]


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
