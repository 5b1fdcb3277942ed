"""Encoders and their preprocessing belong to a run: other settings are refused by name, and change the model's hash."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest

from mmrec.errors import CheckpointError
from mmrec.modality_encoders import FOUNDATION_ENCODERS, TextConfig
from mmrec.model import model_hash
from mmrec.training import preset
from mmrec.training.checkpoint import find_checkpoint
from mmrec.training.trainer import Trainer
from tests.modality_encoders.tiny_networks import WRITERS

KINDS = {"image": "timm_vit", "text": "bert", "audio": "whisper"}


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    root = tmp_path_factory.mktemp("networks")
    for name in KINDS.values():
        (root / name).mkdir()
        WRITERS[name](root / name)
    made = {modality: FOUNDATION_ENCODERS[modality](encoder=f"path:{root / name}") for modality, name in KINDS.items()}
    made["text"] = dataclasses.replace(made["text"], max_tokens=16)
    return made


@pytest.fixture(scope="module")
def make_config(tiny_dataset_path, tmp_path_factory, encoders):
    dataset = shutil.copytree(
        tiny_dataset_path, tmp_path_factory.mktemp("data") / "dataset", ignore=shutil.ignore_patterns("cache")
    )

    def make(run, **changed):
        config = preset("content", dataset, encoders=encoders | changed)
        return dataclasses.replace(config, out=run, batch_size=8, rest_epochs=1, tower_epochs=0, max_epochs=1)

    return make


@pytest.fixture(scope="module")
def run(make_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    Trainer(make_config(folder)).fit()
    return folder


def test_an_encoder_with_another_setting_is_refused_by_its_name(run, make_config, encoders):
    where = r"was trained with another setting of `model\.item_encoder\.encoders"
    cases = [
        (
            {"text": dataclasses.replace(encoders["text"], max_tokens=8)},
            rf"{where}\.text\.max_tokens` \(16 there, 8 now",
        ),
        (
            {"text": dataclasses.replace(encoders["text"], pool="cls")},
            rf'{where}\.text\.pool` \("auto" there, "cls" now',
        ),
        (
            {"audio": dataclasses.replace(encoders["audio"], duration_s=1.0)},
            rf"{where}\.audio\.duration_s` \(0\.0 there",
        ),
        ({"image": dataclasses.replace(encoders["image"], tune="top:1")}, rf"{where}\.image\.tune`"),
        ({"text": TextConfig()}, rf"{where}\.text` \(FoundationTextConfig there, TextConfig now"),
    ]
    for changed, message in cases:
        config = make_config(run, **{name: value for name, value in changed.items() if name in KINDS})
        config = dataclasses.replace(
            config,
            model=dataclasses.replace(
                config.model,
                item_encoder=dataclasses.replace(
                    config.model.item_encoder, encoders=config.model.item_encoder.encoders | changed
                ),
            ),
        )
        with pytest.raises(CheckpointError, match=message) as caught:
            Trainer(config)
        assert "\n" not in str(caught.value)


def test_a_run_without_a_checkpoint_begins_with_the_settings_it_is_given(make_config, encoders, tmp_path):
    """The first one ends before anything is learnt, and leaves what it has fitted."""
    Trainer(make_config(tmp_path / "run"))
    again = Trainer(make_config(tmp_path / "run", text=dataclasses.replace(encoders["text"], max_tokens=8)))
    assert len(again.recommender.inputs.preprocessings["text"]("red thing " * 20)) == 8


def test_the_models_hash_covers_the_preprocessing_of_each_encoder(run, tmp_path):
    checkpoint = find_checkpoint(run)
    hashes = {model_hash(checkpoint)}
    changes = [
        ("image", lambda stored: stored["architecture"]["transform"].update(mean=[0.4, 0.5, 0.5])),
        ("image", lambda stored: stored["architecture"]["transform"].update(width=48)),
        ("audio", lambda stored: stored["extractor"].update(sampling_rate=8000)),
        ("audio", lambda stored: stored.update(duration_s=1.5)),
        ("text", lambda stored: stored.update(prefix="passage: ")),
    ]
    for number, (modality, change) in enumerate(changes):
        copy = shutil.copytree(checkpoint, tmp_path / str(number))
        path = copy / "preprocessing" / modality / "architecture.json"
        stored = json.loads(path.read_text())
        change(stored)
        path.write_text(json.dumps(stored, indent=1))
        hashes.add(model_hash(copy))
    copy = shutil.copytree(checkpoint, tmp_path / "tokens")
    path = copy / "preprocessing" / "text" / "tokenizer.json"
    path.write_text(path.read_text().replace('"red"', '"rod"'))
    hashes.add(model_hash(copy))
    assert len(hashes) == len(changes) + 2
    assert model_hash(shutil.copytree(checkpoint, tmp_path / "same")) == model_hash(checkpoint)
