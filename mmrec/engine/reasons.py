"""Why an item is in an answer: what its score loses without one part of the question.

A score rests on everything that was asked together, so the honest measure of a part is the score without it. The parts
are the items of a history, or those of a query: its items, each medium of its new item, its history.

Legend: P parts, H hits, D vector width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mmrec.engine.questions import History, Query
from mmrec.engine.vectors import Encoders, units
from mmrec.index import Hit, vectors_at

__all__ = ["Reason", "reasons"]


@dataclass(frozen=True, kw_only=True)
class Reason:
    """One part of the question, beside one hit.

    Attributes:
        part: "history", "item", or the modality of a new item.
        item_id, title: of an item of the export; empty for media and for the history of a query as a whole.
        drop: the hit's score less the one that it would have without this part; below 0 the part spoke against it. Of
            the only part it is the whole score.
        cosine: of the hit's vector and the part's.
    """

    part: str
    item_id: str
    title: str
    drop: float
    cosine: float


@dataclass(frozen=True)
class _Part:
    """Args: without: the question less this part, None if nothing is left; vector: of the part alone. (D,)"""

    kind: str
    item_id: str
    without: History | Query | None
    vector: np.ndarray


def reasons(
    encoders: Encoders, question: History | Query, hits: Sequence[Hit], *, blend: bool = True
) -> list[tuple[Reason, ...]]:
    """For each hit the parts of the question, those first whose absence costs the hit most.

    Args:
        question: what the hits are an answer to.
        blend: as the hits were asked for; of a history alone.
    """
    if not hits:
        return []
    parts = _history_parts(encoders, question) if isinstance(question, History) else _query_parts(encoders, question)
    export = encoders.export
    rows = export.item_rows([hit.item_id for hit in hits])
    vectors = vectors_at(export, rows).astype(np.float64)  # (H, D)
    left = [part.without for part in parts if part.without is not None]
    scores = iter(_scores(encoders, left, rows, vectors, blend))
    without = np.stack([np.zeros(len(hits)) if part.without is None else next(scores) for part in parts])  # (P, H)
    drop = np.array([hit.score for hit in hits]) - without
    cosine = units(np.stack([part.vector for part in parts])) @ units(vectors).T
    titles = [_title(encoders, part.item_id) for part in parts]
    found = []
    for column in range(len(hits)):
        order = np.argsort(-drop[:, column], kind="stable")
        found.append(
            tuple(
                Reason(
                    part=parts[n].kind, item_id=parts[n].item_id, title=titles[n],
                    drop=float(drop[n, column]), cosine=float(cosine[n, column]),
                )
                for n in order
            )
        )  # fmt: skip
    return found


def _history_parts(encoders: Encoders, history: History) -> list[_Part]:
    """The items that the user encoder reads; one that was taken several times is left out everywhere."""
    read = len(history.items) - encoders.user_encoder.max_length
    items = list(dict.fromkeys(history.items[max(read, 0) :]))
    vectors = vectors_at(encoders.export, encoders.export.item_rows(items))
    parts = []
    for item, vector in zip(items, vectors, strict=True):
        kept = [n for n, other in enumerate(history.items) if other != item]
        times = None if history.times is None else [history.times[n] for n in kept]
        without = replace(history, items=[history.items[n] for n in kept], times=times) if kept else None
        parts.append(_Part("history", item, without, vector))
    return parts


def _query_parts(encoders: Encoders, query: Query) -> list[_Part]:
    def left(**changes: object) -> Query | None:
        given = {"items": query.items, "record": query.record, "history": query.history} | changes
        empty = not given["items"] and not given["record"] and given["history"] is None
        return None if empty else replace(query, **changes)  # pyright: ignore[reportArgumentType]

    items = list(dict.fromkeys(query.items))
    of_items = vectors_at(encoders.export, encoders.export.item_rows(items)) if items else ()
    parts = [
        _Part("item", item, left(items=[other for other in items if other != item]), vector)
        for item, vector in zip(items, of_items, strict=True)
    ]
    alone = encoders.items([{name: value} for name, value in query.record.items()]) if query.record else ()
    for name, vector in zip(query.record, alone, strict=True):
        others = {other: value for other, value in query.record.items() if other != name}
        parts.append(_Part(name, "", left(record=others), vector))
    if query.history is not None:
        parts.append(_Part("history", "", left(history=None), encoders.users([query.history])[0]))
    return parts


def _scores(
    encoders: Encoders, questions: Sequence[History | Query], rows: np.ndarray, vectors: np.ndarray, blend: bool
) -> np.ndarray:
    """Scores of the hits for other questions, all of one kind. float64 (questions, H)"""
    histories = [one for one in questions if isinstance(one, History)]
    queries = [one for one in questions if isinstance(one, Query)]
    if not questions:
        return np.zeros((0, len(rows)))
    asked = encoders.users(histories) if histories else encoders.queries(queries)
    scores = asked.astype(np.float64) @ vectors.T
    if histories and blend and encoders.blend is not None:
        for score, history in zip(scores, histories, strict=True):
            known, added = encoders.blend.bonus(encoders.export.item_rows(history.items))
            bonus = dict(zip(known.tolist(), added.tolist(), strict=True))
            score += [bonus.get(row, 0.0) for row in rows.tolist()]
    return scores


def _title(encoders: Encoders, item_id: str) -> str:
    return encoders.export.title_column[encoders.export.item_index(item_id)].as_py() if item_id else ""
