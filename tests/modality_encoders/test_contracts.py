"""What every modality encoder must hold, whatever it encodes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from mmrec.config import from_dict, to_dict
from mmrec.modality_encoders import MODALITY_ENCODERS, ItemIdPreprocessing
from mmrec.modality_encoders.tower import TowerEncoder

DIM = 8
MODALITY = {"features": "vec"}  # of the tiny dataset; the other kinds are called like what they encode


class Case:
    """One kind of encoder, fitted to the tiny dataset, with the samples of all items that have the modality."""

    def __init__(self, kind: str, dataset: Any) -> None:
        self.config = MODALITY_ENCODERS[kind]()
        self.modality = MODALITY.get(kind, kind)
        train_items = np.arange(dataset.num_items) % 6 != 5
        self.preprocessing = self.config.fit(dataset, self.modality, train_items)
        if isinstance(self.preprocessing, ItemIdPreprocessing):
            self.raw = np.flatnonzero(self.preprocessing.known()).tolist()
        else:
            present = np.flatnonzero(dataset.present(self.modality))
            self.raw = [dataset.read(self.modality, int(index)) for index in present]
        self.samples = [self.preprocessing(raw) for raw in self.raw]
        torch.manual_seed(0)
        self.encoder = self.config.build(DIM, self.preprocessing).eval()

    def encode(self, samples: list[Any]) -> list[torch.Tensor]:
        """Real tokens of each item."""
        with torch.no_grad():
            tokens, mask = self.encoder(self.preprocessing.collate(samples))
        return [rows[real] for rows, real in zip(tokens, mask, strict=True)]


@pytest.fixture(scope="module", params=sorted(MODALITY_ENCODERS))
def case(request, tiny_dataset):
    return Case(request.param, tiny_dataset)


def test_tokens_have_the_width_of_the_model_and_a_mask(case):
    tokens, mask = case.encoder(case.preprocessing.collate(case.samples))
    assert tokens.shape == (len(case.samples), mask.shape[1], DIM)
    assert tokens.dtype == torch.float32
    assert mask.dtype == torch.bool
    assert mask.any(1).all(), "an item that has the modality has at least one token"
    assert tokens.isfinite().all()


def test_preprocessing_is_deterministic(case):
    again = [case.preprocessing(raw) for raw in case.raw]
    for first, second in zip(case.samples, again, strict=True):
        np.testing.assert_array_equal(first, second)


def test_an_item_does_not_depend_on_the_items_beside_it(case):
    together = case.encode(case.samples)
    for sample, expected in zip(case.samples, together, strict=True):
        torch.testing.assert_close(case.encode([sample])[0], expected, atol=1e-5, rtol=1e-4)


def test_the_order_of_items_does_not_matter(case):
    forwards, backwards = case.encode(case.samples), case.encode(case.samples[::-1])
    for expected, found in zip(forwards, backwards[::-1], strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_different_items_have_different_tokens(case):
    first, second = case.encode(case.samples)[:2]
    assert first.shape != second.shape or (first - second).abs().max() > 1e-6


def test_a_gradient_reaches_every_parameter(case):
    case.encoder.zero_grad()
    inputs = case.preprocessing.collate(case.samples)
    if case.encoder.takes_keys:
        inputs["keys"] = torch.arange(len(case.samples))
    tokens, mask = case.encoder.train()(inputs)
    weights = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(0))
    (tokens * weights)[mask].sum().backward()
    case.encoder.eval()
    for name, parameter in case.encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any() or name.endswith("key.bias"), f"{name} has a gradient of nothing but zeros"


def test_what_is_saved_encodes_like_what_was_fitted(case, tmp_path):
    case.preprocessing.save(tmp_path)
    config = from_dict(type(case.config), json.loads(json.dumps(to_dict(case.config))))
    loaded = config.load_preprocessing(tmp_path)
    for raw, expected in zip(case.raw, case.samples, strict=True):
        np.testing.assert_array_equal(loaded(raw), expected)
    rebuilt = config.build(DIM, loaded).eval()
    rebuilt.load_state_dict(case.encoder.state_dict())
    inputs = loaded.collate(case.samples)
    torch.testing.assert_close(rebuilt(inputs)[0], case.encoder(inputs)[0], atol=0, rtol=0)


def test_what_a_tower_that_rests_made_of_the_media_gives_the_same_tokens(case):
    if not isinstance(case.encoder, TowerEncoder):
        pytest.skip("no tower")
    inputs = case.preprocessing.collate(case.samples)
    with torch.no_grad():
        features, mask = case.encoder.features(inputs)
        tokens, real = case.encoder({"features": features, "mask": mask})
        expected, expected_mask = case.encoder(inputs)
    torch.testing.assert_close(tokens, expected, atol=0, rtol=0)
    assert torch.equal(real, expected_mask)


def test_a_calibrated_content_encoder_stays_on_the_axes_of_its_modality(case):
    if case.modality == "item_id":
        pytest.skip("ids start near zero")
    inputs = case.preprocessing.collate(case.samples)
    rotation = torch.linalg.qr(torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(1)))[0]
    encoder = case.config.build(DIM, case.preprocessing).eval()
    encoder.calibrate(inputs, rotation[:3])
    if isinstance(encoder, TowerEncoder):
        encoder.head.norm = torch.nn.Identity()  # the norm centres entries, which turns the axes a little
    with torch.no_grad():
        tokens, mask = encoder(inputs)
    outside = (tokens[mask] @ rotation[3:].T).abs().max()
    assert outside < 1e-4 * tokens[mask].norm(dim=-1).max()


def test_nothing_is_learnt_from_other_than_training_items(case, tiny_dataset, monkeypatch):
    """Items without a training event are unreadable here; what is fitted is the same."""
    train_items = np.arange(tiny_dataset.num_items) % 6 != 5
    read = tiny_dataset.read

    def guarded(modality: str, item_idx: int) -> Any:
        assert train_items[item_idx], f"item {item_idx} is none of the training items"
        return read(modality, item_idx)

    monkeypatch.setattr(tiny_dataset, "read", guarded)
    fitted = case.config.fit(tiny_dataset, case.modality, train_items)
    for raw, expected in zip(case.raw, case.samples, strict=True):
        np.testing.assert_array_equal(fitted(raw), expected)
