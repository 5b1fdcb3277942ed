"""Ready-made vectors and ids: what an untrained model keeps of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmrec.errors import DataError
from mmrec.modality_encoders import FeaturesConfig, ItemIdConfig
from mmrec.modality_encoders import features as features_module


class Vectors:
    """A feature set and nothing else."""

    def __init__(self, vectors: np.ndarray, present: np.ndarray) -> None:
        self._vectors = vectors
        self._present = present

    def present(self, name: str) -> np.ndarray:
        return self._present

    def features(self, name: str) -> np.ndarray:
        return self._vectors


@pytest.fixture
def vectors() -> np.ndarray:
    """50 vectors of width 6 in a narrow cone, as sentence encoders give them."""
    return (np.random.default_rng(0).normal(size=(50, 6)) + 5).astype(np.float32)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def axes(number: int, dim: int) -> torch.Tensor:
    """Orthonormal rows, as the item encoder gives each modality its own."""
    return torch.linalg.qr(torch.randn(dim, dim, generator=torch.Generator().manual_seed(0)))[0][:number]


def test_a_calibrated_encoder_keeps_the_cosines_of_centred_vectors(vectors):
    config = FeaturesConfig()
    train_items = np.arange(50) < 40
    preprocessing = config.fit(Vectors(vectors, np.ones(50, dtype=bool)), "clip", train_items)
    inputs = preprocessing.collate([preprocessing(row) for row in vectors])
    encoder = config.build(16, preprocessing)
    encoder.calibrate(inputs, axes(8, 16))
    tokens = encoder(inputs)[0][:, 0].detach().numpy()
    centred = unit(unit(vectors) - unit(vectors)[train_items].mean(0))
    np.testing.assert_allclose(tokens @ tokens.T, centred @ centred.T, atol=1e-5)


def test_with_few_axes_the_strongest_directions_are_kept_and_the_length_stays_1(vectors):
    vectors = vectors * np.array([1, 1, 1, 8, 1, 1], dtype=np.float32)
    config = FeaturesConfig()
    preprocessing = config.fit(Vectors(vectors, np.ones(50, dtype=bool)), "clip", np.ones(50, dtype=bool))
    inputs = preprocessing.collate([preprocessing(row) for row in vectors])
    encoder = config.build(4, preprocessing)
    encoder.calibrate(inputs, axes(2, 4))
    tokens = encoder(inputs)[0][:, 0].detach()
    assert float(tokens.norm(dim=1).mean()) == pytest.approx(1.0, rel=1e-5)
    strengths = torch.linalg.svdvals(inputs["vectors"].double())
    found = torch.linalg.svdvals(tokens.double())
    assert found[:2] / found[0] == pytest.approx(strengths[:2] / strengths[0], rel=1e-4)
    assert found[2:].max() < 1e-5 * found[0], "nothing outside of the modality's own axes"


def test_statistics_do_not_depend_on_the_size_of_the_parts_they_are_summed_in(vectors, monkeypatch):
    dataset = Vectors(vectors.astype(np.float16), np.ones(50, dtype=bool))
    whole = FeaturesConfig().fit(dataset, "clip", np.ones(50, dtype=bool))
    monkeypatch.setattr(features_module, "_ROWS", 7)
    parts = FeaturesConfig().fit(dataset, "clip", np.ones(50, dtype=bool))
    np.testing.assert_allclose(parts.mean, whole.mean, atol=1e-7)
    np.testing.assert_allclose(np.abs(parts.directions), np.abs(whole.directions), atol=1e-5)


def test_absent_vectors_do_not_shift_the_mean(vectors):
    present = np.arange(50) % 2 == 0
    holes = np.where(present[:, None], vectors, 0.0).astype(np.float32)
    fitted = FeaturesConfig().fit(Vectors(holes, present), "clip", np.ones(50, dtype=bool))
    np.testing.assert_allclose(fitted.mean, unit(vectors[present]).mean(0), atol=1e-6)


def test_no_vector_of_a_training_item_is_an_error(vectors):
    with pytest.raises(DataError, match="no item with a training event has a vector in features 'clip'"):
        FeaturesConfig().fit(Vectors(vectors, np.zeros(50, dtype=bool)), "clip", np.ones(50, dtype=bool))


def test_only_items_seen_in_training_have_an_id(tiny_dataset):
    train_items = np.arange(24) < 20
    preprocessing = ItemIdConfig().fit(tiny_dataset, "item_id", train_items)
    np.testing.assert_array_equal(preprocessing.known(), train_items)
    assert preprocessing.num_rows == 20


def test_a_fresh_id_is_small_beside_content(tiny_dataset):
    config = ItemIdConfig()
    preprocessing = config.fit(tiny_dataset, "item_id", np.ones(24, dtype=bool))
    torch.manual_seed(0)
    rows = config.build(64, preprocessing).eval()(preprocessing.collate(list(range(24))))[0]
    assert rows.norm(dim=-1).max() < 0.25, "content tokens have length 1"


def test_a_vector_becomes_the_same_bits_alone_and_among_others():
    """Catalogues are read in blocks, new items one by one."""
    draw = np.random.default_rng(0)
    for width in (3, 8, 100, 769):
        rows = draw.standard_normal((17, width)).astype(np.float32)
        preprocessing = features_module.FeaturesPreprocessing(rows.mean(axis=0), np.eye(width, dtype=np.float32))
        block = preprocessing(rows)
        for row, expected in zip(rows, block, strict=True):
            assert np.array_equal(preprocessing(row), expected)
