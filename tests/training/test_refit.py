"""Refit: chosen on validation, then trained again with the validation events; another protocol, and marked so."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from mmrec.baselines.selection import fit_baselines
from mmrec.baselines.sequential_rules import SequentialRules
from mmrec.cli import main
from mmrec.data.splits import make_split
from mmrec.errors import ConfigError
from mmrec.training.evaluation import vectors_of_checkpoint
from mmrec.training.presets import preset
from mmrec.training.refit import refit_config
from mmrec.training.trainer import Trainer


@pytest.mark.parametrize("name", ["leave_one_out", "global_time"])
def test_a_refit_split_trains_on_the_validation_events_and_asks_the_same(tiny_dataset, name):
    plain = make_split(tiny_dataset.sequences, 24, name, quantile=0.7)
    refit = make_split(tiny_dataset.sequences, 24, name, quantile=0.7, refit=True)
    held = len(tiny_dataset.sequences.item_idx) - len(plain.test.targets)
    assert len(refit.train.item_idx) == held
    assert np.array_equal(refit.test.targets, plain.test.targets)
    assert len(refit.valid) == 0
    assert refit.protocol["hash"] != plain.protocol["hash"]
    assert refit.chosen_on is not None
    assert refit.chosen_on.protocol == plain.protocol


def test_baselines_keep_the_settings_that_validation_chose_and_count_all_training_events(tiny_dataset):
    plain = make_split(tiny_dataset.sequences, 24)
    refit = make_split(tiny_dataset.sequences, 24, refit=True)
    chosen, again = fit_baselines(tiny_dataset, plain), fit_baselines(tiny_dataset, refit)
    for name, one in chosen.items():
        assert (again[name].settings, again[name].validation) == (one.settings, one.validation), name
    settings = chosen["sequential_rules"].settings
    settings = {**settings, "window": int(settings["window"])}
    expected = SequentialRules.fit(refit.train, 24, **settings, normalise="confidence")
    history = refit.test.history
    np.testing.assert_array_equal(again["sequential_rules"].baseline.score(history), expected.score(history))
    mixture = again["best_mixture"].baseline
    parts = [name for name in chosen["best_mixture"].settings if name != "form"]
    assert mixture.parts == tuple(again[name].baseline for name in parts)
    assert mixture.form == chosen["best_mixture"].settings["form"]
    assert mixture.scales == chosen["best_mixture"].baseline.scales


def test_a_refit_runs_for_the_steps_of_the_best_checkpoint_and_its_results_are_marked(tiny_dataset_path, tmp_path):
    data, run, again = ["--data", str(tiny_dataset_path)], tmp_path / "run", tmp_path / "again"
    assert main(["train", "id", *data, "--out", str(run), "--max-epochs", "3", "--patience", "1"]) == 0
    assert main(["refit", str(run), "--out", str(again)]) == 0
    best = json.loads((run / "best" / "training_state" / "state.json").read_text())["step"]
    lines = [json.loads(line) for line in (again / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(best))
    assert not any("validation" in line for line in lines), "nothing was left to validate on"
    assert (again / "best").resolve() == (again / "latest").resolve()
    for name, folder in (("plain", run), ("refit", again)):
        assert main(["evaluate", str(folder), *data, "--out", str(tmp_path / name)]) == 0
    plain, refit = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("plain", "refit"))
    assert plain["protocol"]["split"]["trained_on"] == "train"
    assert refit["protocol"]["split"]["trained_on"] == "train and validation"
    assert plain["protocol"]["hash"] != refit["protocol"]["hash"]
    assert main(["refit", str(again), "--out", str(tmp_path / "twice")]) == 2


def test_a_refit_blends_with_the_settings_that_the_plain_run_chose_and_counts_of_its_own(tiny_dataset_path, tmp_path):
    """It has learnt the validation events by heart: chosen on them, its own scores would outweigh the counts."""
    data, run, again = ["--data", str(tiny_dataset_path)], tmp_path / "run", tmp_path / "again"
    assert main(["train", "id", *data, "--out", str(run), "--max-epochs", "2", "--trackers"]) == 0
    assert main(["refit", str(run), "--out", str(again)]) == 0
    plain = vectors_of_checkpoint(run, tiny_dataset_path, "valid").blend()
    refit = vectors_of_checkpoint(again, tiny_dataset_path, "test")
    found = refit.blend()
    assert found.settings == plain.settings
    chosen = {"window": found.settings.window, "shrink": found.settings.shrink, "decay": found.settings.decay}
    expected = SequentialRules.fit(refit.split.train, 24, **chosen)
    assert (found.baseline.rules != expected.rules).nnz == 0
    assert (found.baseline.rules != plain.baseline.rules).nnz > 0
    assert main(["evaluate", str(again), *data, "--out", str(tmp_path / "blend"), "--blend", "--no-baselines"]) == 0
    assert "blend" in json.loads((tmp_path / "blend" / "metrics.json").read_text())["model"]


def test_only_a_finished_run_can_be_refit(tiny_dataset_path, tmp_path, capsys):
    assert main(["refit", str(tmp_path), "--out", str(tmp_path / "again")]) == 2
    assert "holds no checkpoint" in capsys.readouterr().err


def test_towers_rest_in_a_refit_for_as_long_as_they_did(tiny_dataset_path, tmp_path):
    config = dataclasses.replace(
        preset("content", tiny_dataset_path), out=tmp_path / "run", rest_epochs=2, tower_epochs=2, patience=9
    )
    Trainer(config).fit()
    refit = refit_config(tmp_path / "run", tmp_path / "again")
    best = json.loads((tmp_path / "run" / "finished.json").read_text())["best_epoch"]
    resting, learning = min(best, 2), max(best - 2, 0)
    steps = json.loads((tmp_path / "run" / "best" / "training_state" / "state.json").read_text())["step"]
    assert refit.max_steps == steps
    assert (refit.rest_epochs, refit.tower_epochs) == ((resting, learning + 1) if best > 2 else (best + 1, 0))
    Trainer(refit).fit()
    with pytest.raises(ConfigError, match="is a refit already"):
        refit_config(tmp_path / "again", tmp_path / "twice")
