"""What a report shows of single items and users, and that the page needs nothing but itself."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import torch

from mmrec.cli import main
from mmrec.data.splits import make_split
from mmrec.evaluator import make_record, score_vectors, write_record
from mmrec.report import cost_rows, protocol_words, render_report
from mmrec.report_examples import curves_of, make_examples


@pytest.fixture(scope="module")
def split(tiny_dataset):
    return make_split(tiny_dataset.sequences, tiny_dataset.num_items)


@pytest.fixture(scope="module")
def made(tiny_dataset, split):
    generator = np.random.default_rng(0)
    users = generator.standard_normal((len(split.test), 6)).astype(np.float32)
    items = generator.standard_normal((24, 6)).astype(np.float32)
    result = score_vectors(split, "test", users, items)
    assert result.lists is not None
    record = make_record(tiny_dataset, split, "test", result, model={"name": "noise"})
    found = make_examples(tiny_dataset, split, split.test, result.ranks, result.lists, torch.from_numpy(items))
    return items, result, record, found


def test_ten_users_are_shown_with_what_was_right_and_the_nearest_item_of_their_history(
    tiny_dataset, split, made
) -> None:
    items, result, _, found = made
    ids = split.test.history.user_ids.tolist()
    unit = items / np.linalg.norm(items, axis=1, keepdims=True)
    assert len(found["users"]) == 10
    for one in found["users"]:
        query = ids.index(one["user_id"])
        target = split.test.targets[query]
        assert one["rank"] == result.ranks[query] + 1
        assert [int(row["item"]) for row in one["recommended"]] == [v for v in result.lists[query] if v >= 0]
        assert [row["right"] for row in one["recommended"]] == [v == target for v in result.lists[query] if v >= 0]
        history = split.test.history.items_of(query)
        for row in one["recommended"]:
            cosines = unit[history] @ unit[int(row["item"])]
            assert row["because"] == str(history[cosines.argmax()])
            assert row["cosine"] == pytest.approx(cosines.max(), abs=1e-6)
    inside = [any(row["right"] for row in one["recommended"]) for one in found["users"]]
    assert 0 < sum(inside) <= 10, "those who were served well are among them"


def test_failures_are_the_lowest_places_of_known_items(split, made) -> None:
    _, result, _, found = made
    warm = split.train_items[split.test.targets]
    worst = np.sort(result.ranks[warm])[::-1][:6] + 1
    assert [one["rank"] for one in found["failures"]] == worst.tolist()


def test_a_recommendation_says_what_its_vector_is_made_of_where_the_model_can_be_asked(
    tiny_dataset, split, made
) -> None:
    items, result, record, plain = made
    assert result.lists is not None
    assert plain["modalities"] == []
    assert not any("shares" in row for one in plain["users"] for row in one["recommended"])

    def examples(shares):
        given = (tiny_dataset, split, split.test, result.ranks, result.lists, torch.from_numpy(items))
        return make_examples(*given, shares=shares)

    found = examples(lambda rows: {"text": rows / 24, "item_id": 1 - rows / 24})
    assert found["modalities"] == ["text", "item_id"]
    for row in (row for one in [*found["users"], *found["failures"]] for row in one["recommended"]):
        text = int(row["item"]) / 24
        assert row["shares"] == pytest.approx([text, 1 - text], abs=1e-3)
    first = found["users"][0]["recommended"][0]
    page = render_report(record, found)
    assert f"text {100 * first['shares'][0]:.0f} %, item_id {100 * first['shares'][1]:.0f} %" in page
    assert examples(lambda rows: {"item_id": np.ones(len(rows))})["modalities"] == [], "one alone tells nothing"
    assert 'class="shares"' not in render_report(record, plain)


def test_new_items_are_shown_with_their_places_and_the_known_items_near_them(tiny_dataset) -> None:
    """Events after the cut are asked for; items that nobody took before it are new."""
    split = make_split(tiny_dataset.sequences, 24, "global_time:quantile=0.4")
    generator = np.random.default_rng(0)
    users, items = (generator.standard_normal((number, 6)).astype(np.float32) for number in (len(split.test), 24))
    result = score_vectors(split, "test", users, items)
    assert result.lists is not None
    found = make_examples(tiny_dataset, split, split.test, result.ranks, result.lists, torch.from_numpy(items))
    unit = items / np.linalg.norm(items, axis=1, keepdims=True)
    known = np.flatnonzero(split.train_items)
    assert found["new"], "the split has new items among its targets"
    for one in found["new"]:
        item = int(one["item"])
        places = result.ranks[split.test.targets == item]
        assert not split.train_items[item]
        assert (one["asked"], one["found"]) == (len(places), (places < 10).sum())
        assert one["place"] == np.median(places) + 1
        nearest = known[np.argsort(-(unit[known] @ unit[item]))][:5]
        assert [int(row["item"]) for row in one["near"]] == nearest.tolist()
    record = make_record(tiny_dataset, split, "test", result)
    assert "<h2>New items</h2>" in render_report(record, found)


def test_costs_are_told_in_words_and_units() -> None:
    ledger = {"seconds": 5000.0, "steps_s": 3.25, "flops": 3.5e11, "events": 445_094.0, "peak_memory_mb": 1225.8}
    rows = cost_rows({"training_s": 5000.0, "encode_items_s": 0.181, "training": ledger, "device": "CPU"})
    assert rows == [
        ("training", "83.3 min"),
        ("training: its steps", "3.25 s"),
        ("training: arithmetic of matrix products", "0.35 TFLOP"),
        ("training: events learned from", "445,094"),
        ("training: greatest memory", "1,226 MiB"),
        ("encoding the catalogue", "0.18 s"),
        ("this evaluation ran on", "CPU"),
    ]


def test_every_item_has_its_place_on_the_map_and_those_with_media_a_picture(tiny_dataset, split, made) -> None:
    found = made[3]
    assert len(found["map"]["points"]) == found["map"]["of"] == 24
    assert max(abs(point["x"]) for point in found["map"]["points"]) == pytest.approx(1)
    assert sum(point["new"] for point in found["map"]["points"]) == int((~split.train_items).sum())
    assert 0 < found["map"]["neighbours_kept"]["map"] <= 1
    for key, card in found["cards"].items():
        if tiny_dataset.present("image")[int(key)]:
            assert card["picture"].startswith("data:image/jpeg;base64,")
        assert card["title"]


def test_the_page_with_all_its_pictures_loads_nothing(made) -> None:
    _, _, record, found = made
    page = render_report({**record, "reproduce": "mmrec evaluate run --data data --out out"}, found)
    assert "<script" not in page
    for place in re.findall(r"""(?:src|href)=['"]([^'"]*)""", page):
        assert place.startswith(("data:image/jpeg;base64,", "#")), place[:80]
    assert page.count('class="user"') == 16
    assert "mmrec evaluate run --data data --out out" in page
    for sentence in protocol_words(record):
        assert sentence in page


@pytest.mark.parametrize(("name", "says"), [
    ("global_time:quantile=0.7,targets=last,seen=kept", ("Time is cut", "last event alone", "are candidates")),
    ("user_folds:folds=3", ("dealt into folds",)), ("leave_one_out:candidates=as_of_query", ("had taken by then",)),
])  # fmt: skip
def test_the_protocol_is_told_in_words(tiny_dataset, name, says) -> None:
    split = make_split(tiny_dataset.sequences, 24, name)
    users = np.ones((len(split.test), 2), dtype=np.float32)
    record = make_record(tiny_dataset, split, "test", score_vectors(split, "test", users, np.ones((24, 2), np.float32)))
    words = " ".join(protocol_words(record))
    assert all(part in words for part in says), words


def test_curves_are_those_of_the_run_and_none_where_there_is_no_run(tmp_path) -> None:
    lines = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "validation": {"ndcg@10": 0.1, "mrr": 0.2}}]
    (tmp_path / "run" / "best").mkdir(parents=True)
    (tmp_path / "run" / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    expected = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}, {"step": 2, "validation": {"ndcg@10": 0.1}}]
    assert curves_of(tmp_path / "run") == curves_of(tmp_path / "run" / "best") == expected
    assert curves_of(None) == curves_of(tmp_path) == []


def test_the_report_is_written_anew_from_what_lies_beside_it(tiny_dataset, split, made, tmp_path) -> None:
    _, result, record, found = made
    out = write_record(tmp_path / "out", record, tiny_dataset, split, "test", result, examples=found)
    before = (out / "report.html").read_text()
    (out / "report.html").unlink()
    assert main(["report", str(out)]) == 0
    assert (out / "report.html").read_text().count("<img") == before.count("<img") > 0
    shutil.rmtree(out)
    assert main(["report", str(tmp_path)]) == 2
