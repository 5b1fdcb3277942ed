"""`mmrec baselines`: one table, one folder, and results that stand beside those of runs."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from mmrec.cli import main


@pytest.fixture(scope="module")
def made(tiny_dataset_path, tmp_path_factory):
    """Results of the baselines, SASRec among them, and of an evaluated run; what the first command printed."""
    work = tmp_path_factory.mktemp("work")
    data = ["--data", str(tiny_dataset_path)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)  # SASRec's run goes to checkpoints/ there
        run = work / "checkpoints"
        assert main(["baselines", *data, "--sasrec", "--out", "baselines"]) == 0
        assert main(["evaluate", str(next(run.iterdir())), *data, "--out", "run", "--no-baselines", "--sasrec"]) == 0
        assert len(list(run.iterdir())) == 1, "the second command takes the run of the first"
    return work


def record_of(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def test_the_folder_has_settings_seconds_and_metrics_of_each_and_the_protocol_of_a_run(made) -> None:
    together, run = record_of(made / "baselines"), record_of(made / "run")
    assert together["protocol"] == run["protocol"]
    assert {"item_knn", "ease", "best_mixture", "sasrec_id", "random"} <= together["baselines"].keys()
    for name, one in together["baselines"].items():
        if name == "random":
            continue
        assert one["validation_ndcg@10"] > 0, name
        assert one["cost"]["fit_s"] > 0, name
        assert record_of(made / "baselines" / name)["metrics"] == one["metrics"]
        assert record_of(made / "baselines" / name)["model"]["settings"] == one["settings"]
    assert {"shrink", "decay"} == together["baselines"]["item_knn"]["settings"].keys()


def test_sasrec_is_the_run_of_the_preset_id_and_a_baseline_of_the_record_and_its_verdict(made, capsys) -> None:
    sasrec, run = record_of(made / "baselines")["baselines"]["sasrec_id"], record_of(made / "run")
    assert run["model"]["name"] == "id"
    assert sasrec["metrics"] == run["metrics"] == run["baselines"]["sasrec_id"]["metrics"]
    assert run["baselines"].keys() == {"sasrec_id", "random"}
    ranks = [pl.read_parquet(made / name / "ranks.parquet")["rank"] for name in ("baselines/sasrec_id", "run")]
    assert ranks[0].equals(ranks[1])
    from mmrec.report import verdict

    assert "equal to the best baseline, sasrec id" in verdict(run)


def test_baselines_are_compared_with_runs_and_drawn(made, capsys) -> None:
    assert main(["compare", str(made / "run"), str(made / "baselines/ease"), str(made / "baselines/popularity")]) == 0
    assert "run - ease" in capsys.readouterr().out
    assert main(["report", str(made / "baselines/ease")]) == 0
    assert "ease" in (made / "baselines/ease/report.html").read_text()


def test_the_folder_of_all_is_no_run_and_the_error_names_one_of_them(made, capsys) -> None:
    for command in (["compare", str(made / "run"), str(made / "baselines")], ["report", str(made / "baselines")]):
        assert main(command) == 2
        assert "baselines/best_mixture" in capsys.readouterr().err


def test_results_are_not_replaced_unless_asked(tiny_dataset_path, tmp_path, capsys) -> None:
    (tmp_path / "sasrec_id").mkdir()
    command = ["baselines", "--data", str(tiny_dataset_path), "--out", str(tmp_path)]
    assert main(command) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    printed = capsys.readouterr()
    assert "seconds" in printed.out
    assert "item_knn: " in printed.err, "progress, also where nobody watches"
    assert not (tmp_path / "sasrec_id").exists()
