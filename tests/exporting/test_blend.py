"""A model's scores with those of a counting baseline: chosen on validation, exact, the same from an export."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from mmrec.baselines.sequential_rules import SequentialRules
from mmrec.blend import WEIGHTS, Blend, fit_blend
from mmrec.cli import main
from mmrec.data.splits import Queries, Split, make_split
from mmrec.errors import ConfigError
from mmrec.evaluator import score_blend, score_vectors
from mmrec.export_folder import ExportFolder
from mmrec.index import search_by_vector


@pytest.fixture
def split(tiny_dataset) -> Split:
    return make_split(tiny_dataset.sequences, tiny_dataset.num_items)


def vectors(split: Split, part: Queries, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(len(part) + len(split.train_items), 8, generator=generator)
    return torch.nn.functional.normalize(rows, dim=1).split([len(part), len(split.train_items)])


def test_a_blend_is_the_inner_product_plus_weighted_rules(split):
    blend = fit_blend(split, *vectors(split, split.valid))
    users, items = vectors(split, split.test, seed=1)
    settings = blend.settings
    rules = SequentialRules.fit(
        split.train, len(items), window=int(settings.window), shrink=settings.shrink, decay=settings.decay
    )
    expected = (users @ items.T).numpy() + settings.weight * rules.score(split.test.history)
    found = blend.score_block(users, items, split.test.history)(slice(0, len(split.test)))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_settings_and_weight_are_the_best_on_validation_and_never_worse_than_the_vectors_alone(split):
    users, items = vectors(split, split.valid)
    blend = fit_blend(split, users, items)
    assert blend.settings.weight in WEIGHTS
    alone = dataclasses.replace(blend.settings, weight=0.0)

    def ndcg(one: Blend) -> float:
        ranks = score_blend(split, "valid", users, items, one).ranks
        return float(np.mean(np.where(ranks < 10, 1 / np.log2(ranks + 2), 0.0)))

    assert ndcg(blend) == pytest.approx(blend.settings.validation)
    assert ndcg(blend) >= ndcg(Blend(alone, blend.baseline))


def test_a_blend_of_weight_zero_ranks_as_the_vectors_do(split):
    users, items = vectors(split, split.test)
    blend = fit_blend(split, *vectors(split, split.valid))
    off = Blend(dataclasses.replace(blend.settings, weight=0.0), blend.baseline)
    plain, blended = score_vectors(split, "test", users, items), score_blend(split, "test", users, items, off)
    assert np.array_equal(plain.ranks, blended.ranks)
    assert np.array_equal(plain.lists, blended.lists)


def test_histories_that_are_sets_are_blended_with_item_knn(split):
    train = dataclasses.replace(split.train, order="none")
    blend = fit_blend(dataclasses.replace(split, train=train), *vectors(split, split.valid))
    assert (blend.settings.baseline, blend.settings.decay) == ("item_knn", 1.0)


def test_without_validation_nothing_can_be_chosen(split):
    empty = split.valid.take(np.zeros(0, dtype=int))
    with pytest.raises(ConfigError, match="chosen on validation events, of which this split has none"):
        fit_blend(dataclasses.replace(split, valid=empty), torch.zeros(0, 8), torch.zeros(24, 8))


def test_an_export_with_a_blend_evaluates_and_recommends_like_the_run(tiny_dataset_path, tmp_path, capsys):
    data, run, out = ["--data", str(tiny_dataset_path)], str(tmp_path / "run"), tmp_path / "export"
    assert main(["train", "id", *data, "--out", run, "--max-epochs", "1"]) == 0
    assert main(["export", run, *data, "--out", str(out), "--index", "--blend"]) == 0
    for name, source in (("run", [run]), ("export", ["--embeddings", str(out)])):
        results = ["--out", str(tmp_path / f"of-{name}"), "--blend", "--no-baselines"]
        assert main(["evaluate", *source, *data, *results]) == 0
    records = [json.loads((tmp_path / f"of-{name}" / "metrics.json").read_text()) for name in ("run", "export")]
    assert records[0]["metrics"] == records[1]["metrics"]
    assert records[0]["model"]["blend"] == records[1]["model"]["blend"]

    capsys.readouterr()
    asked = ["recommend", str(out), "--items", "i01", "i04", "--k", "5", "--json"]
    answers = {}
    for switch in ("--blend", "--no-blend"):
        assert main([*asked, switch]) == 0
        answers[switch] = json.loads(capsys.readouterr().out)
    blend = Blend.load(out / "model")
    opened = ExportFolder.open(out)
    rows, added = blend.bonus(np.array([opened.item_index("i01"), opened.item_index("i04")]))
    bonus = dict(zip(opened.item_ids[rows].tolist(), added.tolist(), strict=True))
    plain = {hit["item_id"]: hit["score"] for hit in answers["--no-blend"]}
    for hit in answers["--blend"]:
        if hit["item_id"] in plain:
            assert hit["score"] == pytest.approx(plain[hit["item_id"]] + bonus.get(hit["item_id"], 0.0), abs=1e-5)


def test_an_export_without_a_blend_says_so(tmp_path):
    with pytest.raises(ConfigError, match="has no blend; export with --blend"):
        Blend.load(tmp_path)


def test_items_with_a_bonus_are_found_wherever_their_vectors_lie(tmp_path, tiny_dataset, run_export, encoder):
    run_export(encoder(), tmp_path / "out", index=True)
    export = ExportFolder.open(tmp_path / "out")
    user = export.vector("i03")
    worst = int(np.argmin(export.vectors @ user))
    hits = search_by_vector(export, user, 3, bonus=(np.array([worst]), np.array([5.0])))
    assert hits[0].item_id == export.item_ids[worst]
    assert [hit.item_id for hit in hits[1:]] == [hit.item_id for hit in search_by_vector(export, user, 2)]
