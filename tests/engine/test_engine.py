"""What an engine answers: mixed queries, dislikes, many users at once, many threads; and what it refuses."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import mmrec
from mmrec.engine import Engine, History, Query
from mmrec.engine.vectors import DISLIKE_SHARE, away_from, sum_of_units
from mmrec.errors import CheckpointError, ConfigError, DataError, MediaError
from mmrec.inference import encode_history
from mmrec.model import load_model, load_user_encoder
from mmrec.training.checkpoint import find_checkpoint

ITEMS = ("i03", "i07", "i12", "i00", "i19", "i05")


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def vectors(engine: Engine, *items: str) -> np.ndarray:
    return engine.export.vectors_of(items).astype(np.float64)


def ids(hits) -> list[str]:
    return [hit.item_id for hit in hits]


def test_a_mixed_query_is_the_direction_of_the_sum_of_its_parts_unit_vectors(engine, tiny_source):
    picture = tiny_source / "media" / "05.jpg"
    record, history = {"text": "a red thing", "image": picture}, History(items=ITEMS[:3])
    parts = [*vectors(engine, "i00", "i19"), engine.encode_items([record])[0], engine.encode_users([history])[0]]
    expected = unit(sum(unit(part) for part in parts))
    found = engine.encode_queries([Query(items=("i00", "i19"), record=record, history=history)])[0]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_parts_may_come_in_any_order_and_twice(engine):
    first = engine.encode_queries([Query(items=ITEMS, record={"text": "a"})])
    for order in itertools.islice(itertools.permutations(ITEMS), 0, None, 97):
        again = engine.encode_queries([Query(items=(*order, order[0]), record={"text": "a"})])
        assert np.array_equal(again, first), "bit for bit"


def test_the_sum_of_units_does_not_depend_on_order_or_lengths():
    parts = np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32)
    expected = sum_of_units(parts)
    lengths = 2.0 ** np.arange(7, dtype=np.float32)[:, None]  # powers of two, which no rounding touches
    for seed in range(20):
        assert np.array_equal(sum_of_units((parts * lengths)[np.random.default_rng(seed).permutation(7)]), expected)


def test_one_item_is_searched_by_its_own_vector_and_is_no_answer(engine):
    hits = engine.search(Query(items=["i04"]), 100)
    scores = engine.export.vectors.astype(np.float64) @ vectors(engine, "i04")[0]
    assert ids(hits) == [engine.export.item_ids[row] for row in np.argsort(-scores, kind="stable")][1:]
    assert len(hits) == engine.export.num_items - 1


def test_nothing_that_the_query_names_is_an_answer(engine):
    history = History(items=ITEMS[:2], disliked=ITEMS[2:3])
    hits = engine.search(Query(items=ITEMS[3:5], record={"text": "a"}, history=history), 100)
    assert not set(ITEMS[:5]) & set(ids(hits))
    assert len(hits) == engine.export.num_items - 5


def test_parts_that_cancel_each_other_leave_nothing_to_search_near():
    with pytest.raises(DataError, match="cancel each other"):
        sum_of_units(np.array([[1.0, 0.0], [-2.0, 0.0]]))


def test_dislikes_turn_the_user_away_by_the_stated_share(engine):
    plain, steered = engine.encode_users([History(items=ITEMS[:3]), History(items=ITEMS[:3], disliked=ITEMS[3:5])])
    away = np.mean([unit(vector) for vector in vectors(engine, *ITEMS[3:5])], axis=0)
    np.testing.assert_allclose(steered, unit(plain - DISLIKE_SHARE * away), atol=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_disliked_and_what_is_like_it_scores_less(seed):
    generator = np.random.default_rng(seed)
    user = unit(generator.standard_normal(8)).astype(np.float32)
    disliked = generator.standard_normal((1, 8)).astype(np.float32)
    steered = away_from(user, disliked)
    assert steered @ unit(disliked[0]) < user @ unit(disliked[0])
    assert np.linalg.norm(steered) == pytest.approx(1, abs=1e-6)


def test_disliked_items_are_never_an_answer(engine):
    history = History(items=ITEMS[:3])
    first = ids(engine.recommend(history, 100))
    disliked = History(items=ITEMS[:3], disliked=first[:4])
    assert set(ids(engine.recommend(disliked, 100))) == set(first[4:])


def test_a_user_who_dislikes_everything_gets_an_empty_list(engine):
    rest = [item for item in engine.export.item_ids if item not in ITEMS]
    assert engine.recommend(History(items=ITEMS, disliked=rest)) == []
    assert engine.recommend(History(items=ITEMS, disliked=rest), rerank="mmr:0.5") == []


def test_dislikes_alone_are_nothing_to_go_on(engine):
    with pytest.raises(DataError, match="no events to go on"):
        engine.recommend(History(items=(), disliked=ITEMS))
    with pytest.raises(DataError, match="no events to go on"):
        engine.search(Query(items=ITEMS[:1], history=History(items=(), disliked=ITEMS[1:])))


def test_many_users_in_one_pass_are_each_user_alone(engine):
    histories = [History(items=ITEMS[:n], disliked=ITEMS[n : n + 1]) for n in (1, 4, 0, 2, 6)]
    encoder = load_user_encoder(engine.encoders.folder)
    together = engine.encode_users(histories)
    assert not np.any(together[2]), "nobody knows the user without events"
    for row, history in zip(together, histories, strict=True):
        np.testing.assert_allclose(row, engine.encode_users([history])[0], atol=1e-5)
        if history.items and not history.disliked:
            alone = encode_history(encoder, torch.from_numpy(engine.export.vectors_of(history.items)))
            np.testing.assert_allclose(row, alone, atol=1e-5)
    some = [history for history in histories if history.items]
    for many, history in zip(engine.recommend_many(some, 5), some, strict=True):
        alone = engine.recommend(history, 5)
        assert ids(many) == ids(alone)
        np.testing.assert_allclose([hit.score for hit in many], [hit.score for hit in alone], atol=1e-5)


def test_many_queries_in_one_pass_are_each_query_alone(engine):
    queries = [
        Query(items=ITEMS[:2]),
        Query(record={"text": "a blue thing"}),
        Query(history=History(items=ITEMS[:4]), record={"text": "grey"}),
    ]
    for many, query in zip(engine.search_many(queries, 6), queries, strict=True):
        alone = engine.search(query, 6)
        assert ids(many) == ids(alone)
        np.testing.assert_allclose([hit.score for hit in many], [hit.score for hit in alone], atol=1e-5)


def test_no_questions_have_no_answers(engine):
    assert engine.search_many([]) == []
    assert engine.recommend_many([]) == []


def test_threads_get_what_one_gets_even_where_everything_has_yet_to_be_loaded(engine, engine_export, tiny_source):
    picture = tiny_source / "media" / "05.jpg"

    def ask(fresh: Engine, n: int):
        if n % 3 == 0:
            return ids(fresh.recommend(History(items=ITEMS[: n % 5 + 1]), 5))
        record = {"text": f"a red thing {n}"} if n % 3 == 1 else {"image": picture}
        return ids(fresh.search(Query(record=record, items=ITEMS[: n % 3]), 5))

    expected = [ask(engine, n) for n in range(24)]
    fresh = mmrec.load(engine_export)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda n: ask(fresh, n), range(24))) == expected


def test_filters_hold_for_every_kind_of_question(engine):
    colours = engine.export.attributes["category"].to_pylist()
    allowed = {item for item, colour in zip(engine.export.item_ids, colours, strict=True) if colour in ("red", "grey")}
    where = {"category": ["red", "grey"]}
    taken = History(items=ITEMS[:3])
    for answer in (
        engine.search(Query(items=ITEMS[:1]), 100, where=where),
        engine.search(Query(record={"text": "a"}, history=taken), 100, where=where),
    ):
        assert set(ids(answer)) == allowed - set(ITEMS[:3] if len(answer) < len(allowed) - 1 else ITEMS[:1])
    assert set(ids(engine.recommend(taken, 100, where=where))) == allowed - set(ITEMS[:3])
    assert set(ids(engine.recommend(taken, 100, where=where, rerank="mmr:0.5"))) == allowed - set(ITEMS[:3])


def test_a_checkpoint_encodes_items_and_says_what_it_lacks(engine, engine_run, tiny_source):
    records = [{"text": "a red thing"}, {"image": tiny_source / "media" / "05.jpg"}]
    of_run = mmrec.load(engine_run)
    np.testing.assert_allclose(of_run.encode_items(records), engine.encode_items(records), atol=1e-5)
    assert of_run.modalities == engine.modalities
    for ask in (
        lambda: of_run.encode_users([History(items=ITEMS)]),
        lambda: of_run.recommend(History(items=ITEMS)),
        lambda: of_run.search(Query(record={"text": "a"})),
    ):
        with pytest.raises(ConfigError, match="is a checkpoint and has no item vectors; `mmrec export` makes"):
            ask()


def test_modalities_come_together_in_one_model(engine_export, tiny_source):
    fresh, picture = mmrec.load(engine_export), tiny_source / "media" / "05.jpg"
    alone = fresh.encode_items([{"text": "red"}])
    fresh.encode_items([{"image": picture}])
    both = fresh.encode_items([{"text": "red"}, {"text": "red", "image": picture}])
    np.testing.assert_allclose(both[:1], alone, atol=1e-6)
    whole = load_model(fresh.encoders.folder)
    with torch.inference_mode():
        record = {"text": "red", "image": picture.read_bytes()}
        expected = whole.encode_items(whole.inputs.from_records([record])).numpy()
    np.testing.assert_allclose(both[1:], expected, atol=1e-5)


def test_folders_that_are_neither_export_nor_checkpoint_are_refused(tmp_path, engine_run, engine_export):
    with pytest.raises(DataError, match="is no export folder"):
        mmrec.load(tmp_path)
    shutil.copytree(engine_export, tmp_path / "unfinished")
    (tmp_path / "unfinished" / "manifest.json").unlink()
    (tmp_path / "unfinished" / "unfinished").mkdir()
    with pytest.raises(DataError, match="unfinished"):
        mmrec.load(tmp_path / "unfinished")
    shutil.copytree(find_checkpoint(engine_run), tmp_path / "damaged")
    with (tmp_path / "damaged" / "model.safetensors").open("r+b") as file:
        file.write(b"\0\0\0")
    with pytest.raises(CheckpointError, match=r"is damaged: model.safetensors is not what was written"):
        mmrec.load(tmp_path / "damaged")


def test_times_are_asked_for_where_the_model_reads_them(timed_export):
    timed = mmrec.load(timed_export)
    assert timed.reads_times
    with pytest.raises(ConfigError, match="reads when items were taken; give a time for each"):
        timed.encode_users([History(items=ITEMS[:2], times=[1, 2]), History(items=ITEMS[:2])])
    with pytest.raises(ConfigError, match="1 times were given for 2 items"):
        History(items=ITEMS[:2], times=[5])
    together = timed.encode_users([History(items=ITEMS[:2], times=[1, 2]), History(items=ITEMS[:3], times=[1, 2, 9])])
    alone = timed.encode_users([History(items=ITEMS[:3], times=[1, 2, 9])])
    np.testing.assert_allclose(together[1], alone[0], atol=1e-5)


def test_bad_questions_are_refused_in_one_line(engine, tiny_source, tmp_path):
    no_picture = tmp_path / "no.jpg"
    no_picture.write_text("I am no picture")
    empty = tmp_path / "empty.jpg"
    empty.touch()
    for record, error, message in (
        ({"image": no_picture}, MediaError, "image|picture|decode"),
        ({"image": tiny_source / "media" / "02.jpg"}, MediaError, "."),  # cut off in the middle
        ({"image": tmp_path / "none.jpg"}, DataError, "is no file; give the path of one"),
        ({"image": empty}, DataError, "the image is empty"),
        ({"text": "  "}, DataError, "the text is empty"),
        ({"image": str(tiny_source / "media" / "05.jpg")}, ConfigError, "is of type str; give bytes or a pathlib.Path"),
        ({"text": b"red"}, ConfigError, "is of type bytes; give a string"),
        ({"text": 5}, ConfigError, "is of type int; give a string"),
        ({"smell": b"roses"}, ConfigError, "does not encode 'smell' of new items; it encodes .*text"),
        ({"item_id": "i03"}, ConfigError, "does not encode 'item_id' of new items"),
    ):
        with pytest.raises(error, match=message) as raised:
            engine.search(Query(record=record))
        assert "\n" not in str(raised.value)
    with pytest.raises(ConfigError, match="record 2 of 2 is empty"):
        engine.encode_items([{"text": "a"}, {"image": None}])
    for ask in (
        lambda: engine.search(Query(items=["i3"])),
        lambda: engine.recommend(History(items=["i3"])),
        lambda: engine.recommend(History(items=ITEMS[:1], disliked=["i3"])),
    ):
        with pytest.raises(DataError, match="unknown item_id 'i3'; perhaps you meant 'i"):
            ask()
    with pytest.raises(ConfigError, match="the query is empty"):
        Query()
    with pytest.raises(ConfigError, match="items is the string 'i03'; give a list of item ids"):
        History(items="i03")
    with pytest.raises(ConfigError, match="k is 0"):
        engine.recommend(History(items=ITEMS), 0)


def test_a_model_of_ids_alone_encodes_nothing_new(timed_export):
    with pytest.raises(ConfigError, match="does not encode 'text' of new items; it encodes none"):
        mmrec.load(timed_export).search(Query(record={"text": "a red lamp"}))


def test_a_search_by_several_items_needs_no_torch(engine_export):
    program = (
        "import sys, mmrec; from mmrec.engine import Query;"
        "print(len(mmrec.load(sys.argv[1]).search(Query(items=['i03', 'i07']), 3)));"
        "print([name for name in ('torch', 'transformers', 'polars', 'pandas', 'scipy') if name in sys.modules])"
    )
    command = [sys.executable, "-c", program, str(engine_export)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["3", "[]"]


def test_the_modalities_of_an_answer_are_those_of_the_export(engine, engine_export):
    names = json.loads((engine_export / "manifest.json").read_text())["modalities"]
    bits = dict(zip(engine.export.item_ids, engine.export.table["modalities"].to_pylist(), strict=True))
    for hit in engine.search(Query(items=["i04"]), 24):
        assert hit.modalities == tuple(name for n, name in enumerate(names) if bits[hit.item_id] >> n & 1)
