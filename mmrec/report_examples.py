"""What a report shows of single items and users: a map of the item space, ten users, worst failures, new items.

Legend: Q queries, V items of the catalogue, D model width.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmrec.data.audit.thumbnails import PICTURED, item_thumbnail
from mmrec.data.dataset import Dataset
from mmrec.data.splits import Queries, Split
from mmrec.neighbour_map import neighbour_map, neighbours_kept
from mmrec.principal_plane import principal_plane

__all__ = ["curves_of", "make_examples"]

_METRICS = "metrics.jsonl"

_USERS, _HISTORY, _RECOMMENDED, _FAILURES = 10, 6, 10, 6
_NEW, _NEAR = 6, 5
_MAPPED, _PICTURED = 600, 400
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
    shares: Callable[[np.ndarray], dict[str, np.ndarray]] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Things to look at, as JSON.

    Users are drawn, not picked: half of them from those whose list holds a target, so that both are seen. A
    recommendation's reason is the item of the history whose vector is nearest to it, and, where the model can be asked,
    the shares of the modalities in the item's own vector.

    Args:
        ranks: of the targets. (T,)
        lists: best items of each query, -1 where there is none. (Q, k)
        items: vectors of the catalogue. (V, D)
        shares: of some items, the share of each modality in the weights of fusion, (n,) by name; None: not known.
        seed: draws users, and items of the map.

    Returns: "cards" by item, "users", "failures", "new" (items), "map", "modalities" (of the shares).
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
        "new": _new_items(split, queries, ranks, vectors, cards, generator),
        "modalities": [] if shares is None else _add_shares([*users, *failures], shares),
        "map": _map(split, vectors, cards, generator),
        "cards": cards.cards,
    }


def _user(
    queries: Queries, query: int, best: np.ndarray, lists: np.ndarray, vectors: np.ndarray, cards: _Cards
) -> dict[str, Any]:
    history = queries.history.items_of(query)
    targets = queries.targets[queries.target_offsets[query] : queries.target_offsets[query + 1]]
    shown = [int(item) for item in lists[query][:_RECOMMENDED] if item >= 0]
    near = vectors[shown] @ vectors[history].T if shown else np.zeros((0, len(history)))
    return {
        "user_id": str(queries.history.user_ids[query]),
        "events": int(queries.history.lengths[query]),
        "rank": float(best[query]) + 1,
        "history": [cards.add(int(item)) for item in history[-_HISTORY:]],
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


def _new_items(
    split: Split,
    queries: Queries,
    ranks: np.ndarray,
    vectors: np.ndarray,
    cards: _Cards,
    generator: np.random.Generator,
) -> list[dict[str, Any]]:
    """Some targets that training has not seen: how they were found, and the known items that their vectors lie near."""
    known = np.flatnonzero(split.train_items)
    asked = np.unique(queries.targets[~split.train_items[queries.targets]])
    found = []
    for item in np.sort(generator.permutation(asked)[:_NEW]) if len(known) else ():
        places = ranks[queries.targets == item]
        cosines = vectors[known] @ vectors[item]
        near = np.argsort(-cosines, kind="stable")[:_NEAR]
        found.append(
            {
                "item": cards.add(int(item)),
                "asked": len(places),
                "found": int((places < _RECOMMENDED).sum()),
                "place": float(np.median(places)) + 1,
                "near": [{"item": cards.add(int(known[one])), "cosine": float(cosines[one])} for one in near],
            }
        )
    return found


def _add_shares(users: list[dict[str, Any]], shares: Callable[[np.ndarray], dict[str, np.ndarray]]) -> list[str]:
    """Tell each recommendation which modalities its item's vector is made of; their names. One alone is not told."""
    shown = sorted({int(row["item"]) for one in users for row in one["recommended"]})
    found = shares(np.array(shown, dtype=np.int64)) if shown else {}
    if len(found) < 2:
        return []
    place = {str(item): number for number, item in enumerate(shown)}
    for row in (row for one in users for row in one["recommended"]):
        row["shares"] = [round(float(values[place[row["item"]]]), 3) for values in found.values()]
    return list(found)


def _map(split: Split, vectors: np.ndarray, cards: _Cards, generator: np.random.Generator) -> dict[str, Any]:
    """A draw of the items on a plane, near where their vectors are near; some of them with a picture."""
    chosen = np.sort(generator.permutation(len(vectors))[:_MAPPED])
    drawn = vectors[chosen]
    places = neighbour_map(drawn)
    pictured = set(generator.permutation(len(chosen))[:_PICTURED].tolist())
    points = []
    for number, (item, place) in enumerate(zip(chosen.tolist(), places / _largest(places), strict=True)):
        title = (cards.dataset.titles[item].splitlines() or [""])[0][:_TITLE]
        point = {"x": round(float(place[0]), 4), "y": round(float(place[1]), 4), "title": title}
        point["new"] = not bool(split.train_items[item])
        point["item"] = cards.add(item) if number in pictured and cards.pictured else None
        points.append(point)
    kept = {"map": neighbours_kept(drawn, places), "components": neighbours_kept(drawn, principal_plane(drawn)[0])}
    return {"points": points, "neighbours_kept": kept, "of": len(vectors)}


def _largest(places: np.ndarray) -> np.ndarray:
    return np.abs(places).max(axis=0, initial=1e-12)
