"""Items in parts that fit into memory: bounded by the bytes of their media, whatever these are."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from mmrec import item_inputs
from mmrec.inference import encode_catalog, encode_views, use_tower_outputs
from mmrec.item_encoder import ItemEncoderConfig
from mmrec.item_inputs import CatalogInputs, ItemInputs, parts_of
from mmrec.modality_encoders import FeaturesConfig, ImageConfig, VideoConfig
from mmrec.model import ModelConfig

SIDE, FRAMES = 40, 3
PICTURE = 3 * SIDE * SIDE


@pytest.fixture
def model(tiny_dataset):
    """Pictures, and clips that take three times as much, and a byte a frame for the mask."""
    encoders = {"image": ImageConfig(size_px=SIDE), "video": VideoConfig(size_px=SIDE, num_frames=FRAMES, patch_px=8)}
    everything = np.ones(tiny_dataset.num_items, dtype=bool)
    preprocessings = {name: config.fit(tiny_dataset, name, everything) for name, config in encoders.items()}
    torch.manual_seed(0)
    return ModelConfig(item_encoder=ItemEncoderConfig(encoders=encoders, dim=8)).build(preprocessings).eval()


def bytes_of(batch) -> int:
    return sum(values.nbytes for inputs in batch.inputs.values() for values in inputs.values())


def test_parts_keep_the_order_and_the_bounds(monkeypatch):
    monkeypatch.setattr(item_inputs, "CHUNK_BYTES", 100)
    sizes = np.array([10, 60, 50, 500, 1, 1, 1, 1, 1, 1])
    parts = parts_of(np.arange(10) * 7, sizes, max_items=4)
    assert np.concatenate(parts).tolist() == list(range(0, 70, 7))
    assert all(len(part) <= 4 for part in parts)
    totals = [sizes[part // 7].sum() for part in parts]
    assert all(total - sizes[part[-1] // 7] < 100 for part, total in zip(parts, totals, strict=True)), "one item over"
    assert parts_of(np.arange(0), np.zeros(0), 4) == []


def test_chunks_of_a_catalogue_are_bounded_by_the_bytes_of_what_is_read(tiny_dataset, model, monkeypatch):
    monkeypatch.setattr(item_inputs, "CHUNK_BYTES", 4 * PICTURE)
    catalog = CatalogInputs(tiny_dataset, model.inputs)
    chunks = catalog.chunks(np.arange(24), 512)
    assert np.concatenate(chunks).tolist() == list(range(24))
    largest = PICTURE + FRAMES * (PICTURE + 1)
    assert max(bytes_of(catalog.batch(chunk)) for chunk in chunks) < 4 * PICTURE + largest
    assert len(chunks) >= bytes_of(catalog.batch(np.arange(24))) // (4 * PICTURE + largest)
    pictures = catalog.chunks(np.arange(24), 512, media="image")
    assert len(pictures) < len(chunks), "clips do not count where pictures are read"
    use_tower_outputs(model, catalog)
    assert len(catalog.chunks(np.arange(24), 512)) == 1, "kept outputs are small"


def test_a_catalogue_in_small_chunks_has_the_vectors_of_one_at_once(tiny_dataset, model, monkeypatch):
    whole = encode_catalog(model, CatalogInputs(tiny_dataset, model.inputs), np.arange(24))
    views = encode_views(model, CatalogInputs(tiny_dataset, model.inputs), np.arange(24), [["image"], ["video"], []])
    monkeypatch.setattr(item_inputs, "CHUNK_BYTES", 1)
    seen, done = [], []
    catalog = CatalogInputs(tiny_dataset, model.inputs)
    found = encode_catalog(
        model, catalog, np.arange(24), progress=done.append, watch=lambda items, tokens, vectors: seen.append(items)
    )
    torch.testing.assert_close(found, whole, atol=1e-6, rtol=0)
    assert len(done) > 10
    assert sum(done) == 24
    assert np.concatenate(seen).tolist() == list(range(24))
    again = encode_views(model, catalog, np.arange(24), [["image"], ["video"], []])
    torch.testing.assert_close(again, views, atol=1e-6, rtol=0)
    use_tower_outputs(model, catalog)
    torch.testing.assert_close(encode_catalog(model, catalog, np.arange(24)), whole, atol=1e-6, rtol=0)


def test_decoding_ahead_never_holds_more_than_a_chunk_beside_what_is_kept(tiny_dataset, model, monkeypatch):
    """With no room to keep samples, each part of the catalogue is gone when the next one is decoded."""
    monkeypatch.setattr(item_inputs, "CHUNK_BYTES", 3 * PICTURE)
    catalog = CatalogInputs(tiny_dataset, model.inputs, cache_bytes=0)
    told: list[int] = []
    catalog.warm(told.append)
    assert sum(told) == 24
    assert max(told) < 24
    assert not any(catalog._kept.values())
    assert not catalog._tables


def test_kept_samples_become_a_table_with_the_same_values(tiny_dataset, model):
    decoded = CatalogInputs(tiny_dataset, model.inputs)
    expected = decoded.batch(np.arange(24))
    warmed = CatalogInputs(tiny_dataset, model.inputs)
    warmed.warm()
    assert set(warmed._tables) == {"image", "video"}
    found = warmed.batch(np.arange(24))
    assert torch.equal(found.present, expected.present)
    for name, inputs in expected.inputs.items():
        for key, values in inputs.items():
            assert torch.equal(found.inputs[name][key], values)


def test_encoders_are_calibrated_alike_in_small_chunks_and_at_once(tiny_dataset_path, tmp_path, monkeypatch):
    from mmrec.modality_encoders import FoundationImageConfig
    from mmrec.training import preset
    from mmrec.training.trainer import Trainer

    encoders = {"image": FoundationImageConfig(encoder="timm:test_vit@random", tune="top:1")}
    config = preset("hybrid", tiny_dataset_path, encoders=encoders)
    weights = []
    for cached, num_bytes in ((True, 1 << 25), (True, 1), (False, 1)):
        monkeypatch.setattr(item_inputs, "CHUNK_BYTES", num_bytes)
        run = tmp_path / f"run-{len(weights)}"
        trainer = Trainer(dataclasses.replace(config, out=run, feature_cache=cached))
        weights.append(trainer.recommender.item_encoder.encoders["image"].head.projection.weight)
    for others in weights[1:]:
        torch.testing.assert_close(others, weights[0], atol=1e-4, rtol=1e-3)


def test_ready_made_vectors_are_the_same_bits_read_in_blocks_kept_or_one_by_one(tiny_dataset):
    preprocessing = FeaturesConfig().fit(tiny_dataset, "vec", np.ones(24, dtype=bool))
    keeping, not_keeping = (
        CatalogInputs(tiny_dataset, ItemInputs({"vec": preprocessing}), cache_bytes=size) for size in (1 << 20, 0)
    )
    for items in (np.arange(24), np.array([5, 3, 3, 9])):
        present = items[tiny_dataset.present("vec")[items]]
        one_by_one = np.stack([preprocessing(tiny_dataset.read("vec", int(item))) for item in present])
        for catalog in (keeping, not_keeping, keeping):
            assert np.array_equal(catalog.batch(items).inputs["vec"]["vectors"].numpy(), one_by_one)
