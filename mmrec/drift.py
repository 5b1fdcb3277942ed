"""What changed between two exports, two versions of a dataset, two periods of one, or two evaluations.

Legend: n items that both have, V items of both together, D width of the vectors.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from mmrec.comparison import read_results
from mmrec.data.dataset import Dataset
from mmrec.errors import ConfigError, DataError
from mmrec.export_folder import ExportFolder

__all__ = ["Change", "drift", "embedding_drift", "popularity_shift"]

_NEIGHBOURS, _ASKED, _TOP = 10, 2000, 100


@dataclass(frozen=True, kw_only=True)
class Change:
    """One line of the answer.

    Attributes:
        what: what is measured.
        old, new: its values, None where it is a measure of both together.
        both: a measure of both together, else None.
        meaning: in a few words.
    """

    what: str
    old: float | None = None
    new: float | None = None
    both: float | None = None
    meaning: str = ""


def drift(old: Path, new: Path, *, cut: str | None = None) -> list[Change]:
    """Compare two folders of one kind: exports, datasets, or results.

    Args:
        cut: datasets alone: a day (UTC); of OLD the events before it count, of NEW those from it on. The same dataset
            given twice is then compared with itself, period with period.

    Raises:
        DataError: if the folders are of different kinds or of none, or have nothing in common.
        ConfigError: if a cut is given that cannot be.
    """
    kinds = [_kind(old), _kind(new)]
    if kinds[0] != kinds[1]:
        raise DataError(f"{old} holds {kinds[0]}, {new} holds {kinds[1]}; give two folders of one kind")
    if cut is not None and kinds[0] != "a dataset":
        raise ConfigError(f"--cut goes with datasets; {old} holds {kinds[0]}")
    if kinds[0] == "an export":
        return _of_exports(ExportFolder.open(old), ExportFolder.open(new))
    if kinds[0] == "results":
        return _of_results(old, new)
    return _of_datasets(Dataset.open(old), Dataset.open(new), cut)


def embedding_drift(old: np.ndarray, new: np.ndarray, *, seed: int = 0) -> dict[str, float]:
    """How far the vectors of the same items moved.

    ``cosine``: mean cosine of each item's two vectors as they are, where the widths are equal. ``aligned_cosine``: the
    same after the best rotation of the old ones, which a training from another seed may well have turned (orthogonal
    Procrustes, Schoenemann 1966). ``neighbours_kept``: of the ten nearest items of an item, the share that are the same
    in both, of at most 2,000 drawn items: what recommendations see of the drift.

    Args:
        old, new: row i of both is the same item. (n, D), (n, D')
        seed: draws the items that are asked for their neighbours.
    """
    first, second = _unit(old), _unit(new)
    found = {"cosine": float((first * second).sum(axis=1).mean())} if first.shape[1] == second.shape[1] else {}
    left, _, right = np.linalg.svd(first.T @ second, full_matrices=False)
    found["aligned_cosine"] = float(((first @ (left @ right)) * second).sum(axis=1).mean())
    most = min(_NEIGHBOURS, len(first) - 1)
    if most > 0:
        asked = np.sort(np.random.default_rng(seed).permutation(len(first))[:_ASKED])
        kept = [
            len(np.intersect1d(a, b)) / most
            for a, b in zip(_nearest(first, asked, most), _nearest(second, asked, most), strict=True)
        ]
        found["neighbours_kept"] = float(np.mean(kept))
    return found


def popularity_shift(old: np.ndarray, new: np.ndarray) -> dict[str, float]:
    """How differently events are spread over the items.

    ``divergence``: Jensen-Shannon divergence of the shares of events, in bits: 0 where equal, 1 where no item has
    events in both (Lin 1991). ``top_kept``: share of the old hundred most popular that are among the new. ``unseen``:
    share of the new events that go to items without an old one.

    Args:
        old, new: events of each item. (V,)
    """
    p, q = old / old.sum(), new / new.sum()
    middle = (p + q) / 2
    most = min(_TOP, int((old > 0).sum()), int((new > 0).sum()))
    old_top, new_top = (np.argsort(-counts, kind="stable")[:most] for counts in (old, new))
    return {
        "divergence": float((_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2),
        "top_kept": len(np.intersect1d(old_top, new_top)) / most,
        "unseen": float(new[old == 0].sum() / new.sum()),
    }


def _kind(folder: Path) -> str:
    if (folder / "metrics.json").is_file():
        return "results"
    manifest = folder / "manifest.json"
    schema = json.loads(manifest.read_text()).get("schema") if manifest.is_file() else None
    kinds = {"mmrec.export": "an export", "mmrec.dataset": "a dataset"}
    if schema not in kinds:
        raise DataError(f"{folder} is no export, no dataset and no results; give a folder that mmrec has written")
    return kinds[schema]


def _of_exports(old: ExportFolder, new: ExportFolder) -> list[Change]:
    both, rows, new_rows = np.intersect1d(old.item_ids, new.item_ids, return_indices=True)
    if not len(both):
        raise DataError(f"{old.path} and {new.path} have no item in common; give exports of one catalogue")
    moved = embedding_drift(old.vectors[rows], new.vectors[new_rows])
    names = {
        "cosine": "mean cosine of an item's vectors as they are",
        "aligned_cosine": "the same after the best rotation",
        "neighbours_kept": "share of the ten nearest items that stayed",
    }
    changes = [
        *_catalogue(old.num_items, new.num_items, len(both)),
        *(Change(what=f"vectors: {name.replace('_', ' ')}", both=moved[name], meaning=names[name]) for name in moved),
    ]
    bits = [export.bitmasks for export in (old, new)]
    known = [export.manifest["modalities"] for export in (old, new)]
    for name in dict.fromkeys([*known[0], *known[1]]):
        shares = [_has(mask, names, name) for mask, names in zip(bits, known, strict=True)]
        changes.append(_coverage(name, *shares))
    return changes


def _has(mask: np.ndarray, names: list[str], name: str) -> float:
    return float((mask >> names.index(name) & 1).mean()) if name in names else 0.0


def _of_datasets(old: Dataset, new: Dataset, cut: str | None) -> list[Change]:
    moment = None if cut is None else _moment(cut, old, new)
    ids = np.union1d(old.item_ids.tolist(), new.item_ids.tolist())
    common = len(np.intersect1d(old.item_ids.tolist(), new.item_ids.tolist()))
    counts = [
        _events(old, ids, None if moment is None else lambda times: times < moment),
        _events(new, ids, None if moment is None else lambda times: times >= moment),
    ]
    for data, events in zip((old, new), counts, strict=True):
        if not events.sum():
            where = "" if cut is None else f" on its side of {cut}; give another day"
            raise DataError(f"{data.path} has no events{where}")
    shift = popularity_shift(*counts)
    meanings = {
        "divergence": "bits: 0 the same shares of events, 1 no item in both",
        "top_kept": "share of the old hundred most popular that still are",
        "unseen": "share of the new events on items without an old one",
    }
    changes = [
        *_catalogue(old.num_items, new.num_items, common),
        Change(what="events", old=float(counts[0].sum()), new=float(counts[1].sum())),
        *(Change(what=f"popularity: {n.replace('_', ' ')}", both=shift[n], meaning=meanings[n]) for n in shift),
    ]
    for name in dict.fromkeys([*old.modalities, *new.modalities]):
        shares = [float(data.present(name).mean()) if name in data.modalities else 0.0 for data in (old, new)]
        changes.append(_coverage(name, *shares))
    return changes


def _moment(cut: str, old: Dataset, new: Dataset) -> int:
    try:
        moment = int(datetime.strptime(cut, "%Y-%m-%d").replace(tzinfo=UTC).timestamp())
    except ValueError as error:
        raise ConfigError(f"--cut {cut} is no day; write it as 2018-05-01") from error
    for data in (old, new):
        if data.sequences.timestamps is None:
            raise ConfigError(f"--cut needs events with timestamps; {data.path} has none")
    return moment


def _events(data: Dataset, ids: np.ndarray, keep: Callable[[np.ndarray], np.ndarray] | None) -> np.ndarray:
    items, times = data.sequences.item_idx, data.sequences.timestamps
    if keep is not None and times is not None:
        items = items[keep(times)]
    place = np.searchsorted(ids, np.array(data.item_ids.tolist()))
    return np.bincount(place[items], minlength=len(ids)).astype(np.float64)


def _of_results(old: Path, new: Path) -> list[Change]:
    records: list[dict[str, Any]] = [read_results(folder)[0] for folder in (old, new)]
    shared = [name for name in records[0]["metrics"] if name in records[1]["metrics"]]
    shown = [name for name in shared if name.endswith("@10") or name == "mrr"]
    same = records[0]["protocol"]["hash"] == records[1]["protocol"]["hash"]
    meaning = "" if same else "the protocols differ: other queries, so that a change may be theirs"
    changes = [
        Change(what=n, old=records[0]["metrics"][n], new=records[1]["metrics"][n], meaning=meaning) for n in shown
    ]
    lists = [record["beyond_accuracy"] for record in records]
    return [*changes, *(Change(what=n, old=lists[0][n], new=lists[1][n]) for n in lists[0] if n in lists[1])]


def _catalogue(old: int, new: int, both: int) -> list[Change]:
    return [
        Change(what="items", old=float(old), new=float(new)),
        Change(what="items: gone", both=float(old - both), meaning="of the old ones"),
        Change(what="items: added", both=float(new - both), meaning="of the new ones"),
    ]


def _coverage(name: str, old: float, new: float) -> Change:
    return Change(what=f"coverage: {name}", old=old, new=new, meaning="share of the items that have it")


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, dtype=np.float64)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)


def _nearest(vectors: np.ndarray, asked: np.ndarray, most: int) -> np.ndarray:
    found = []
    for start in range(0, len(asked), 256):
        rows = asked[start : start + 256]
        scores = vectors[rows] @ vectors.T
        scores[np.arange(len(rows)), rows] = -np.inf
        found.append(np.argpartition(-scores, most - 1, axis=1)[:, :most])
    return np.concatenate(found)


def _relative_entropy(p: np.ndarray, q: np.ndarray) -> float:
    there = p > 0
    return float((p[there] * np.log2(p[there] / q[there])).sum())
