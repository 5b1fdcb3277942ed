"""The alarm for vectors that have collapsed: rings where it is planted, in any width, and not on healthy vectors."""

from __future__ import annotations

import dataclasses
import logging

import pytest
import torch
import torch.nn.functional as F

from mmrec.metrics.embedding_quality import Scatter
from mmrec.training import preset
from mmrec.training.trainer import Trainer
from mmrec.training.validation import collapse

WIDTHS = [16, 64, 512]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def scatter_of(vectors: torch.Tensor) -> Scatter:
    scatter = Scatter(vectors.shape[1])
    scatter.add(F.normalize(vectors, dim=1))
    return scatter


PLANTED = {
    "equal": lambda dim: torch.ones(600, dim),
    "equal but for a little noise": lambda dim: torch.ones(600, dim) + 0.05 * noise(600, dim),
    "on a line, but for a little noise": lambda dim: (
        noise(600, 1) * noise(1, dim, seed=1) + 0.02 * noise(600, dim, seed=2)
    ),
    "two heaps beside what all have in common": lambda dim: (
        3 * noise(1, dim, seed=3) + noise(600, 1).sign() * noise(1, dim, seed=1) + 0.02 * noise(600, dim, seed=2)
    ),
}

HEALTHY = {
    "random": lambda dim: noise(600, dim),
    "few": lambda dim: noise(20, dim),
    "within a narrow cone": lambda dim: noise(600, dim) + 3 * noise(1, dim, seed=1),
    "a spectrum that falls as 1 / k": lambda dim: noise(600, dim) / torch.arange(1, dim + 1).sqrt(),
    "a quarter of the axes, as one of four modalities starts": lambda dim: F.pad(
        noise(600, dim // 4), (0, 3 * dim // 4)
    ),
    "sixteen groups": lambda dim: noise(16, dim)[torch.arange(600) % 16] + 0.2 * noise(600, dim, seed=1),
}


@pytest.mark.parametrize("dim", WIDTHS)
@pytest.mark.parametrize("name", PLANTED)
def test_it_rings_where_collapse_is_planted(name, dim):
    assert collapse(scatter_of(PLANTED[name](dim)))


@pytest.mark.parametrize("dim", WIDTHS)
@pytest.mark.parametrize("name", HEALTHY)
def test_it_does_not_ring_on_healthy_vectors(name, dim):
    assert collapse(scatter_of(HEALTHY[name](dim))) is None


def test_how_many_directions_are_enough_depends_on_the_width():
    def in_four_directions(dim: int) -> Scatter:
        return scatter_of(F.pad(noise(600, 4), (0, dim - 4)))

    assert collapse(in_four_directions(64)) is None
    said = collapse(in_four_directions(2048))
    assert said is not None
    assert "they differ in 4.0 of 599 directions (effective rank)" in said


def test_a_collapsed_tower_is_named_though_the_fused_vectors_hide_it(tiny_dataset_path, tmp_path, caplog):
    trainer = Trainer(dataclasses.replace(preset("hybrid", tiny_dataset_path), out=tmp_path / "run"))

    def validate() -> tuple[dict[str, float], list[str]]:
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            _, directions = trainer.validation(trainer.recommender, trainer.catalog)
        return directions, [record.getMessage() for record in caplog.records if "collapsed" in record.getMessage()]

    directions, said = validate()
    assert not said
    assert directions["text"] > 3
    head = trainer.recommender.item_encoder.encoders["text"].head
    with torch.no_grad():
        head.projection.weight *= 1e-4
    directions, said = validate()
    assert [message.split(":")[0] for message in said] == ["the text vectors have collapsed"]
    assert "the mean cosine of two of them is 1.000" in said[0]
    assert directions["fused"] > 3
    assert not validate()[1], "once is enough"
