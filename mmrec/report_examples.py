"""What a report shows of single items and users: a map of the item space, ten users, the worst failures.

Legend: Q queries, V items of the catalogue, D model width.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmrec.data.audit.thumbnails import PICTURED, item_thumbnail
from mmrec.data.dataset import Dataset
from mmrec.data.splits import Queries, Split
from mmrec.principal_plane import principal_plane

__all__ = ["curves_of", "make_examples"]

_METRICS = "metrics.jsonl"

_USERS, _HISTORY, _RECOMMENDED, _FAILURES = 10, 6, 10, 6
_MAPPED, _PICTURED = 600, 150
_SIDE_PX = 88
_TITLE = 48


def curves_of(run: Path | None) -> list[dict[str, Any]]:
    """Loss and validation by step from the metrics.jsonl of a run folder, or of the one that a checkpoint lies in.

    At most some hundred losses: a page shows no more.
    """
    folders = [] if run is None else [run, run.parent]
    path = next((folder / _METRICS for folder in folders if (folder / _METRICS).is_file()), None)
    if path is None:
        return []
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    losses = [{"step": line["step"], "loss": line["loss"]} for line in lines if "loss" in line]
    every = max(1, len(losses) // 300)
    validations = [
        {"step": line["step"], "validation": {"ndcg@10": line["validation"]["ndcg@10"]}}
        for line in lines if "ndcg@10" in line.get("validation", {})
    ]  # fmt: skip
    return [*losses[::every], *validations]


class _Cards:
    """Items as they are shown, each once: title, and a small picture where a medium decodes."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset
        self.pictured = any(name in dataset.modalities for name in PICTURED)
        self.cards: dict[str, dict[str, Any]] = {}

    def add(self, item: int) -> str:
        key = str(item)
        if key not in self.cards:
            title = (self.dataset.titles[item].splitlines() or [""])[0]
            short = title if len(title) <= _TITLE else title[: _TITLE - 1] + "…"
            self.cards[key] = {"title": short, "picture": self._picture(item)}
        return key

    def _picture(self, item: int) -> str | None:
        data = item_thumbnail(self.dataset, item, side_px=_SIDE_PX, quality=72)
        return None if data is None else "data:image/jpeg;base64," + base64.b64encode(data).decode()


def make_examples(
    dataset: Dataset,
    split: Split,
    queries: Queries,
    ranks: np.ndarray,
    lists: np.ndarray,
    items: torch.Tensor,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Things to look at, as JSON.

    Users are drawn, not picked: half of them from those whose list holds a target, so that both are seen. A
    recommendation's reason is the item of the history whose vector is nearest to it.

    Args:
        ranks: of the targets. (T,)
        lists: best items of each query, -1 where there is none. (Q, k)
        items: vectors of the catalogue. (V, D)
        seed: draws users, and items of the map.

    Returns: "cards" by item, "users", "failures", "map".
    """
    generator = np.random.default_rng(seed)
    cards = _Cards(dataset)
    vectors = torch.nn.functional.normalize(items.float().cpu(), dim=1).numpy()
    best = np.minimum.reduceat(ranks, queries.target_offsets[:-1])
    asked = np.flatnonzero(queries.history.lengths > 0)
    drawn = generator.permutation(asked)
    hits = [query for query in drawn if best[query] < _RECOMMENDED][: _USERS // 2]
    misses = [query for query in drawn if best[query] >= _RECOMMENDED][: _USERS - len(hits)]
    users = [_user(queries, query, best, lists, vectors, cards) for query in sorted([*hits, *misses])]
    # Failures of items that training knows: of new ones it can know little.
    warm = np.logical_and.reduceat(split.train_items[queries.targets], queries.target_offsets[:-1])
    known = asked[warm[asked]]
    worst = known[np.argsort(-best[known], kind="stable")[:_FAILURES]]
    failures = [_user(queries, query, best, lists, vectors, cards) for query in worst]
    return {
        "users": users,
        "failures": failures,
        "map": _map(split, vectors, cards, generator),
        "cards": cards.cards,
    }


def _user(
    queries: Queries, query: int, best: np.ndarray, lists: np.ndarray, vectors: np.ndarray, cards: _Cards
) -> dict[str, Any]:
    history = queries.history.items_of(query)[-_HISTORY:]
    targets = queries.targets[queries.target_offsets[query] : queries.target_offsets[query + 1]]
    shown = [int(item) for item in lists[query][:_RECOMMENDED] if item >= 0]
    near = vectors[shown] @ vectors[history].T if shown else np.zeros((0, len(history)))
    return {
        "user_id": str(queries.history.user_ids[query]),
        "events": int(queries.history.lengths[query]),
        "rank": float(best[query]) + 1,
        "history": [cards.add(int(item)) for item in history],
        "targets": [cards.add(int(item)) for item in targets[:3]],
        "recommended": [
            {
                "item": cards.add(item),
                "right": bool(item in targets),
                "because": cards.add(int(history[near[place].argmax()])),
                "cosine": float(near[place].max()),
            }
            for place, item in enumerate(shown)
        ],
    }


def _map(split: Split, vectors: np.ndarray, cards: _Cards, generator: np.random.Generator) -> dict[str, Any]:
    """First two principal components of the unit vectors, of a draw of the items; some of them with a picture."""
    chosen = np.sort(generator.permutation(len(vectors))[:_MAPPED])
    places, explained = principal_plane(vectors)
    pictured = set(generator.permutation(len(chosen))[:_PICTURED].tolist())
    points = []
    for number, (item, place) in enumerate(zip(chosen.tolist(), places[chosen], strict=True)):
        title = (cards.dataset.titles[item].splitlines() or [""])[0][:_TITLE]
        point = {"x": round(float(place[0]), 4), "y": round(float(place[1]), 4), "title": title}
        point["new"] = not bool(split.train_items[item])
        point["item"] = cards.add(item) if number in pictured and cards.pictured else None
        points.append(point)
    return {"points": points, "explained": explained.tolist(), "of": len(vectors)}
