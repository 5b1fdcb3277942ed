"""Explanations: a part's drop is the score without it, asked anew."""

from __future__ import annotations

import numpy as np
import pytest

from mmrec.engine import History, Query

ITEMS = ("i03", "i07", "i12", "i00")


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def score_of(hits, item_id: str) -> float:
    return next(hit.score for hit in hits if hit.item_id == item_id)


@pytest.mark.parametrize("blend", [False, True])
def test_the_drop_of_an_item_is_what_the_score_loses_without_it(engine, blend):
    history = History(items=ITEMS, disliked=("i19",))
    hits = engine.recommend(history, 4, blend=blend)
    for hit, reasons in zip(hits, engine.explain(history, hits, blend=blend), strict=True):
        assert {reason.item_id for reason in reasons} == set(ITEMS)
        assert [reason.drop for reason in reasons] == sorted((reason.drop for reason in reasons), reverse=True)
        for reason in reasons:
            others = History(items=[item for item in ITEMS if item != reason.item_id], disliked=("i19",))
            without = score_of(engine.recommend(others, 24, blend=blend), hit.item_id)
            assert reason.drop == pytest.approx(hit.score - without, abs=1e-5)
            one, other = (unit(engine.export.vector(item)) for item in (hit.item_id, reason.item_id))
            assert reason.cosine == pytest.approx(float(one @ other), abs=1e-5)
            assert reason.part == "history"


def test_the_drop_of_a_part_of_a_query_is_what_the_score_loses_without_it(engine, tiny_source):
    record = {"text": "a red thing", "image": tiny_source / "media" / "05.jpg"}
    history = History(items=ITEMS[2:])
    query = Query(items=ITEMS[:2], record=record, history=history)
    without = {
        ("item", ITEMS[0]): Query(items=ITEMS[1:2], record=record, history=history),
        ("item", ITEMS[1]): Query(items=ITEMS[:1], record=record, history=history),
        ("text", ""): Query(items=ITEMS[:2], record={"image": record["image"]}, history=history),
        ("image", ""): Query(items=ITEMS[:2], record={"text": record["text"]}, history=history),
        ("history", ""): Query(items=ITEMS[:2], record=record),
    }
    hits = engine.search(query, 3)
    for hit, reasons in zip(hits, engine.explain(query, hits), strict=True):
        assert {(reason.part, reason.item_id) for reason in reasons} == without.keys()
        for reason in reasons:
            asked = engine.encode_queries([without[reason.part, reason.item_id]])[0]
            score = float(asked.astype(np.float64) @ engine.export.vector(hit.item_id))
            assert reason.drop == pytest.approx(hit.score - score, abs=1e-5)


def test_the_only_part_is_the_whole_score(engine):
    for question, hits in (
        (History(items=["i03", "i03"]), engine.recommend(History(items=["i03", "i03"]), 3)),
        (Query(record={"text": "red"}), engine.search(Query(record={"text": "red"}), 3)),
    ):
        for hit, (reason,) in zip(hits, engine.explain(question, hits), strict=True):
            assert reason.drop == pytest.approx(hit.score)


def test_titles_come_along_and_no_hits_need_no_reasons(engine, tiny_dataset):
    history = History(items=["i03"])
    ((reason,),) = engine.explain(history, engine.recommend(history, 1))
    assert reason.title == tiny_dataset.titles[tiny_dataset.item_index("i03")]
    assert engine.explain(history, []) == []


def test_events_that_the_model_does_not_read_are_no_reason(engine):
    most = engine.encoders.user_encoder.max_length
    history = History(items=["i05", *(["i03", "i07"] * most)])
    (reasons,) = engine.explain(history, engine.recommend(history, 1))
    assert {reason.item_id for reason in reasons} == {"i03", "i07"}
