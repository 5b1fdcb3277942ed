"""Whom a new item may please, counted user by user."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest

import mmrec
from mmrec.cli import main
from mmrec.engine import History, Query
from mmrec.engine.audience import audience_of
from mmrec.errors import ConfigError, DataError
from mmrec.index.removed import change_removed


def counted(users: np.ndarray, items: np.ndarray, new: np.ndarray, k: int) -> float:
    """One user after the other: how many items score higher, and half of those that score the same."""
    shown = 0
    for user in users.astype(np.float64):
        own = user @ new.astype(np.float64)
        scores = [user @ item for item in items.astype(np.float64)]
        shown += sum(score > own for score in scores) + sum(score == own for score in scores) / 2 < k
    return shown / len(users)


@pytest.mark.parametrize("k", [1, 3, 10, 24])
@pytest.mark.parametrize("seed", range(3))
def test_the_share_is_that_of_a_count_user_by_user(with_users, k, seed):
    folder, users = with_users
    export = mmrec.load(folder).export
    new = np.random.default_rng(seed).standard_normal(export.dim).astype(np.float32)
    new /= np.linalg.norm(new)
    found = audience_of(export, new, k)
    assert found.share == counted(users[:-1], export.vectors, new, k), "a user without events is nobody"
    assert (found.counted, found.num_users) == (299, 299)
    assert found.low == found.high == found.share, "all users were asked"


def test_the_nearest_users_are_a_sort_of_all_inner_products(with_users):
    folder, users = with_users
    engine = mmrec.load(folder)
    query = Query(record={"text": "a red thing"})
    found = engine.audience(query, num_nearest=7)
    scores = users[:-1].astype(np.float64) @ engine.encode_queries([query])[0].astype(np.float64)
    best = np.argsort(-scores)[:7]
    assert [user.user_id for user in found.nearest] == [f"u{n:03d}" for n in best]
    np.testing.assert_allclose([user.score for user in found.nearest], scores[best], rtol=1e-12)
    assert [user.rank for user in found.nearest] == list(range(1, 8))


def test_the_vector_of_a_user_is_wanted_by_that_user(with_users):
    folder, users = with_users
    found = audience_of(mmrec.load(folder).export, users[17], 1)
    assert found.nearest[0].user_id == "u017"
    assert found.share >= 1 / 299


def test_a_sample_of_users_is_drawn_by_the_seed_and_has_an_interval(with_users):
    folder, users = with_users
    export = mmrec.load(folder).export
    whole = audience_of(export, users[3], 5)
    covered = 0
    for seed in range(40):
        some = audience_of(export, users[3], 5, max_users=100, seed=seed)
        assert (some.counted, some.num_users) == (100, 299)
        assert some.low <= some.share <= some.high
        assert some.nearest == whole.nearest, "the nearest are looked for among all"
        covered += some.low <= whole.share <= some.high
    assert covered >= 36, "of 40 intervals of 95 %"
    again = audience_of(export, users[3], 5, max_users=100, seed=7)
    assert dataclasses.asdict(again) == dataclasses.asdict(audience_of(export, users[3], 5, max_users=100, seed=7))


def test_users_are_those_that_export_writes(engine_run, tiny_dataset, tmp_path):
    out = tmp_path / "export"
    assert main(["export", str(engine_run), "--data", str(tiny_dataset.path), "--out", str(out), "--users"]) == 0
    engine = mmrec.load(out)
    taken = tiny_dataset.sequences.take(np.array([4]))
    user = engine.encode_users([History(items=tiny_dataset.item_ids[taken.item_idx].tolist())])[0]
    found = audience_of(engine.export, user, 1)
    assert found.num_users == tiny_dataset.num_users
    assert found.nearest[0].user_id == str(taken.user_ids[0])
    assert found.nearest[0].score == pytest.approx(1, abs=1e-5)


def test_removed_items_are_nobodys_competition(with_users, tmp_path):
    folder, users = with_users
    shutil.copytree(folder, tmp_path / "export")
    export = mmrec.load(folder).export
    change_removed(tmp_path / "export", export.item_ids[:10].tolist(), remove=True)
    found = audience_of(mmrec.load(tmp_path / "export").export, users[3], 5)
    assert found.share == counted(users[:-1], export.vectors[10:], users[3], 5)


def test_without_users_or_with_bad_numbers_one_line(engine, with_users):
    with pytest.raises(DataError, match="has no vectors of users; export with --users"):
        engine.audience(Query(record={"text": "a red thing"}))
    export = mmrec.load(with_users[0]).export
    with pytest.raises(ConfigError, match="k is 0; it must be at least 1"):
        audience_of(export, with_users[1][0], 0)
    with pytest.raises(ConfigError, match="the number of users is 0"):
        audience_of(export, with_users[1][0], 5, max_users=0)
