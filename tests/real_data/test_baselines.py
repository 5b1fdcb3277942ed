"""The baselines on real histories, against figures measured elsewhere with the same protocol."""

from __future__ import annotations

import polars as pl
import pytest

from mmrec.data.dataset import Dataset
from mmrec.data.ingest import IngestConfig, ingest
from mmrec.data.splits import make_split
from mmrec.evaluator import run_baselines


@pytest.mark.slow
def test_amazon_beauty_gives_the_known_rates(shared_data, tmp_path) -> None:
    """22,363 users. Known, from an implementation of its own: item-kNN .0717/.0425, with rules .0854/.0541."""
    interactions = shared_data / "amazon_beauty/interactions.parquet"
    items = tmp_path / "items.parquet"
    pl.read_parquet(interactions).select("item_id").unique(maintain_order=True).write_parquet(items)
    dataset = Dataset.open(ingest(IngestConfig(items=items, interactions=interactions, out=tmp_path / "beauty")))
    split = make_split(dataset.sequences, dataset.num_items)
    assert (len(split.test), dataset.num_items) == (22_363, 12_101)

    measured = {name: one["metrics"] for name, one in run_baselines(dataset, split, progress=False).items()}

    for name, hit_rate, ndcg in (("item_knn", 0.0717, 0.0425), ("rules_and_knn", 0.0854, 0.0541)):
        assert measured[name]["hr@10"] == pytest.approx(hit_rate, abs=0.004), name
        assert measured[name]["ndcg@10"] == pytest.approx(ndcg, abs=0.004), name
    assert measured["random"]["hr@10"] == pytest.approx(10 / 12_101, rel=0.01)
    assert measured["popularity"]["hr@10"] > 5 * measured["random"]["hr@10"]


@pytest.mark.slow
def test_on_amazon_scientific_content_reaches_new_items_and_the_mixture_is_best(shared_data, tmp_path) -> None:
    """1,585 items with CLIP vectors. Known: content .1305/.0882, rules + content .1680/.1131."""
    pack = shared_data / "amazon_scientific"
    config = IngestConfig(
        items=pack / "items.parquet",
        interactions=pack / "interactions.parquet",
        features=tuple(f"{name}={pack / name}.npy" for name in ("clip_image", "clip_text")),
        out=tmp_path / "scientific",
    )
    dataset = Dataset.open(ingest(config))
    measured = run_baselines(dataset, make_split(dataset.sequences, dataset.num_items), progress=False)

    content, both = measured["content_knn"]["metrics"], measured["rules_and_content"]["metrics"]
    assert content["hr@10"] == pytest.approx(0.1305, abs=0.004)
    assert content["ndcg@10"] == pytest.approx(0.0882, abs=0.004)
    assert both["ndcg@10"] > 0.1131 - 0.004
    assert both["ndcg@10"] == max(one["metrics"]["ndcg@10"] for one in measured.values())
    cold = {name: one["slices"]["cold_items"]["metrics"]["hr@10"] for name, one in measured.items()}
    assert cold["item_knn"] == cold["popularity"] == 0
    assert cold["content_knn"] > 5 * cold["random"]
