"""Sweeps: what is searched, what is recorded, what is never read, and that a killed study goes on."""

from __future__ import annotations

import csv
import dataclasses
import json
import sys
from pathlib import Path

import pytest

from eval import cold_start, modality_subsets
from mmrec.cli import main
from mmrec.errors import ConfigError, DataError
from mmrec.training import preset
from mmrec.training.tuning import Range, Study, default_space, parse_range, with_settings

SMALL = ["--max-epochs", "2", "--batch-size", "8", "--trackers"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b=1,2,4", ("a.b", Range(choices=(1, 2, 4)))),
        ("schedule=constant,cosine", ("schedule", Range(choices=("constant", "cosine")))),
        ("x=0.1:0.5", ("x", Range(low=0.1, high=0.5))),
        ("x=log:1e-4:1e-2", ("x", Range(low=1e-4, high=1e-2, log=True))),
        ("n=int:1:4", ("n", Range(low=1, high=4, whole=True))),
    ],
)
def test_a_range_is_written_in_a_word(text, expected):
    assert parse_range(text) == expected


@pytest.mark.parametrize("text", ["x", "x=", "x=3:1", "x=log:0:1", "x=1:2:3", "x=int:a:b", "x=0:inf"])
def test_a_range_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="cannot search"):
        parse_range(text)


def test_settings_are_changed_by_their_dotted_names(tiny_dataset_path):
    config = preset("hybrid", tiny_dataset_path)
    of_ids = "model.item_encoder.encoders.item_id.dropout"
    changed = with_settings(config, {"learning_rate": 0.5, "model.user_encoder.dropout": 0.25, of_ids: 0})
    assert (changed.learning_rate, changed.model.user_encoder.dropout) == (0.5, 0.25)
    assert changed.model.item_encoder.encoders["item_id"].dropout == 0
    assert changed.model.item_encoder.encoders["image"] is config.model.item_encoder.encoders["image"]
    assert config.learning_rate != 0.5


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("learning_rat", "unknown setting 'learning_rat'; perhaps you meant 'learning_rate'"),
        ("model.user_encoder.dropouts", "model.user_encoder: unknown setting 'dropouts'; perhaps you meant 'dropout'"),
        ("learning_rate.x", "learning_rate is 0.001 and has no parts"),
    ],
)
def test_a_setting_that_does_not_exist_is_refused(tiny_dataset_path, name, said):
    with pytest.raises(ConfigError, match=said):
        with_settings(preset("id", tiny_dataset_path), {name: 1})


def test_the_default_space_fits_every_preset(tiny_dataset_path):
    for name in ("id", "content", "hybrid", "features"):
        config = preset(name, tiny_dataset_path)
        for setting, values in default_space(config).items():
            with_settings(config, {setting: values.choices[0] if values.choices else values.high})


@pytest.fixture(scope="module")
def study(tiny_dataset_path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "study"
    search = ["--search", "learning_rate=log:1e-4:1e-2;model.user_encoder.num_blocks=1,2"]
    command = ["tune", "id", "--data", str(tiny_dataset_path), "--out", str(folder), *search, *SMALL]
    assert main([*command, "--trials", "2"]) == 0
    assert main([*command, "--trials", "4"]) == 0, "the same command goes on"
    return folder


def test_trials_are_recorded_with_their_settings_and_validation(study):
    with (study / "trials.csv").open() as file:
        records = list(csv.DictReader(file))
    assert len(records) == 4
    for record in records:
        stored = json.loads(next((study / record["run"]).glob("step-*/config.json")).read_text())
        assert stored["learning_rate"] == pytest.approx(float(record["learning_rate"]))
        assert stored["model"]["user_encoder"]["num_blocks"] == int(record["model.user_encoder.num_blocks"])
        lines = [json.loads(line) for line in (study / record["run"] / "metrics.jsonl").read_text().splitlines()]
        values = [line["validation"]["ndcg@10"] for line in lines if "validation" in line]
        assert float(record["ndcg@10"]) == pytest.approx(max(values))


def test_the_first_trial_has_the_presets_own_settings(study, tiny_dataset_path):
    stored = json.loads(next((study / "trial-0000").glob("step-*/config.json")).read_text())
    own = preset("id", tiny_dataset_path)
    assert stored["learning_rate"] == own.learning_rate
    assert stored["model"]["user_encoder"]["num_blocks"] == own.model.user_encoder.num_blocks


def test_another_study_in_the_same_folder_is_refused(study, tiny_dataset_path, capsys):
    command = ["tune", "id", "--data", str(tiny_dataset_path), "--out", str(study), *SMALL]
    assert main([*command, "--search", "batch_size=4,8"]) == 2
    assert "holds another study" in capsys.readouterr().err


def test_one_trial_alone_reads_the_test_part_whatever_the_way(study, tiny_dataset_path, tmp_path, capsys):
    data = ["--data", str(tiny_dataset_path)]
    chosen, other, export, refit = study / "trial-0001", study / "trial-0000", tmp_path / "export", tmp_path / "refit"

    def evaluate(*given: str | Path, part: str = "test") -> int:
        out = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
        options = ["--out", str(out), "--part", part, "--no-baselines"]
        return main(["evaluate", *map(str, given), *data, *options])

    assert main(["evaluate", str(other), "--data", "nowhere", "--out", str(tmp_path / "nothing")]) == 2
    assert not (study / "test_read.json").exists(), "a command that fails has read nothing"
    assert evaluate(chosen) == evaluate(chosen) == evaluate(chosen / "latest") == 0
    assert evaluate(other, part="valid") == 0
    assert main(["export", str(other), *data, "--out", str(export)]) == 0
    assert main(["refit", str(other), "--out", str(refit)]) == 0
    for given in ([other], ["--embeddings", export], [refit]):
        capsys.readouterr()
        assert evaluate(*given) == 2
        assert "the test part was read for trial-0001" in capsys.readouterr().err
    for config in (cold_start.ColdStart, modality_subsets.ModalitySubsets):
        with pytest.raises(DataError, match="the test part was read for trial-0001"):
            sys.modules[config.__module__].study(
                config(checkpoint=other, data=tiny_dataset_path, out=tmp_path / "study")
            )


def test_a_bad_trial_ends_early(tiny_dataset_path, tmp_path):
    """A rate so small that nothing is learnt is worse than the median of five good trials from the fourth epoch on."""
    config = dataclasses.replace(preset("id", tiny_dataset_path), batch_size=8, max_epochs=12, patience=99, trackers=())
    study = Study(config, {"learning_rate": Range(low=1e-9, high=1e-2, log=True)}, tmp_path / "study")
    for rate in (1e-2, 9e-3, 8e-3, 7e-3, 6e-3, 1e-9):
        study._study.enqueue_trial({"learning_rate": rate})
    study.run(6)
    last = next(record for record in study.results() if record["learning_rate"] == 1e-9)
    assert last["state"] == "pruned"
    assert last["epochs"] < 12
    assert study.results()[0]["state"] == "complete"
