"""`mmrec search` and `mmrec recommend`: the engine's answers as tables and JSON, and bad input in one line."""

from __future__ import annotations

import collections
import json

import pytest

from mmrec.cli import main
from mmrec.engine import History, Query
from mmrec.engine.lists import reranked
from mmrec.reranking import Reranking

ITEMS = ("i03", "i07", "i12")


def asked(capsys, *arguments: str):
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, *arguments: str) -> str:
    capsys.readouterr()
    assert main(list(arguments)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_search_takes_everything_at_once(engine, engine_export, tiny_source, capsys):
    picture = tiny_source / "media" / "05.jpg"
    found = asked(
        capsys, "search", str(engine_export), "--items", "i00", "i19", "--text", "a red thing", "--image", str(picture),
        "--history", *ITEMS, "--disliked", "i05", "--where", "category=red,grey", "--k", "4",
    )  # fmt: skip
    query = Query(
        items=("i00", "i19"),
        record={"text": "a red thing", "image": picture},
        history=History(items=ITEMS, disliked=("i05",)),
    )
    expected = engine.search(query, 4, where={"category": ["red", "grey"]})
    assert [hit["item_id"] for hit in found] == [hit.item_id for hit in expected]
    assert [hit["score"] for hit in found] == pytest.approx([hit.score for hit in expected], abs=1e-5)


def test_recommend_takes_everything_at_once(engine, engine_export, capsys):
    found = asked(
        capsys, "recommend", str(engine_export), "--items", *ITEMS, "--disliked", "i05", "--where", "category=red,grey",
        "--rerank", "mmr:0.6", "--explain", "--k", "4", "--no-blend",
    )  # fmt: skip
    history = History(items=ITEMS, disliked=("i05",))
    where = {"category": ["red", "grey"]}
    expected = engine.recommend(history, 4, blend=False, where=where, rerank="mmr:0.6")
    assert [hit["item_id"] for hit in found] == [hit.item_id for hit in expected]
    for hit, reasons in zip(found, engine.explain(history, expected, blend=False), strict=True):
        assert [reason["item_id"] for reason in hit["why"]] == [reason.item_id for reason in reasons]
        assert [reason["drop"] for reason in hit["why"]] == pytest.approx([one.drop for one in reasons], abs=1e-5)


def test_a_new_item_has_vector_neighbours_and_audience_in_one_call(with_users, capsys):
    folder, _ = with_users
    found = asked(capsys, "search", str(folder), "--text", "a red thing", "--audience", "--k", "5")
    assert (len(found["vector"]), len(found["hits"])) == (128, 5)
    assert 0 <= found["audience"]["share"] <= 1
    assert found["audience"]["counted"] == 299
    assert len(found["audience"]["nearest"]) == 10
    assert main(["search", str(folder), "--text", "a red thing", "--audience", "--k", "5"]) == 0
    table = capsys.readouterr().out
    assert f"in the first 5 of {found['audience']['share']:.2%} of users (299 users)" in table
    assert found["audience"]["nearest"][0]["user_id"] in table


def test_capped_lists_are_full_where_a_larger_pool_fills_them(engine):
    history, seen = History(items=ITEMS), []

    def ask(size: int):
        seen.append(size)
        return engine.recommend(history, min(size, 3 * len(seen)))  # as if the best were few

    hits = reranked(engine.export, ask, 4, Reranking.parse("cap:category=1"))
    colours = dict(zip(engine.export.item_ids, engine.export.attributes["category"].to_pylist(), strict=True))
    assert max(collections.Counter(colours[hit.item_id] for hit in hits).values()) == 1
    assert [hit.rank for hit in engine.recommend(history, 4, rerank="cap:category=1")] == [1, 2, 3, 4]


def test_fair_lists_have_the_shares_of_the_catalogue(engine):
    colours = dict(zip(engine.export.item_ids, engine.export.attributes["category"].to_pylist(), strict=True))
    hits = engine.recommend(History(items=ITEMS), 8, rerank="fair:category")
    counts = collections.Counter(colours[hit.item_id] for hit in hits)
    assert set(counts.values()) == {2}, "four colours of six items each"


def test_tables_show_reasons_and_modalities_where_asked(engine_export, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["recommend", str(engine_export), "--items", *ITEMS, "--k", "2"]) == 0
    assert "because of" not in capsys.readouterr().out
    assert main(["recommend", str(engine_export), "--items", *ITEMS, "--k", "2", "--explain"]) == 0
    table = capsys.readouterr().out
    assert "because of" in table
    assert "text" in table


def test_what_leaves_nothing_says_so(engine, engine_export, capsys):
    rest = [str(item) for item in engine.export.item_ids if item not in ITEMS]
    assert asked(capsys, "recommend", str(engine_export), "--items", *ITEMS, "--disliked", *rest) == []
    assert main(["recommend", str(engine_export), "--items", *ITEMS, "--disliked", *rest]) == 0
    assert capsys.readouterr().out.startswith("no item is left")


def test_bad_input_is_refused_in_one_line(engine_export, timed_export, tmp_path, capsys):
    export, no_picture = str(engine_export), tmp_path / "no.jpg"
    no_picture.write_text("I am no picture")
    recommend = ("recommend", export, "--items", *ITEMS)
    for arguments, message in (
        (("search", export), "the query is empty"),
        (("search", export, "--items", "i3"), "unknown item_id 'i3'; perhaps you meant"),
        (("search", export, "--image", str(no_picture)), "mmrec search: "),
        (("search", export, "--image", str(tmp_path / "none.jpg")), "is no file"),
        (("search", export, "--text", ""), "the text is empty"),
        (("search", str(timed_export), "--text", "a"), "does not encode 'text'"),
        (("search", str(timed_export), "--history", "i03"), "give --times"),
        (("recommend", str(timed_export), "--items", "i03"), "give --times"),
        (("search", export, "--disliked", "i03"), "give --history"),
        (("search", export, "--items", "i03", "--audience"), "--audience is asked for a new item"),
        (("search", export, "--text", "a", "--audience"), "export with --users"),
        (("recommend", export), "give either --items"),
        ((*recommend, "--where", "category"), "give COLUMN=VALUE"),
        ((*recommend, "--where", "category="), "give COLUMN=VALUE"),
        ((*recommend, "--where", "category=red", "--where", "category=blue"), "names 'category' twice"),
        ((*recommend, "--where", "colour=red"), "unknown attribute 'colour'"),
        ((*recommend, "--where", "category=pink"), "unknown category 'pink'"),
        ((*recommend, "--rerank", "mmr:3"), "give mmr:LAMBDA"),
        ((*recommend, "--rerank", "fair:colour"), "unknown attribute"),
        ((*recommend, "--k", "0"), "k is 0"),
    ):
        assert message in refused(capsys, *arguments), arguments
