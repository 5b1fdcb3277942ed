"""The demo types what a user would, stops where a step fails, and shows the numbers of the records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mmrec.cli import main
from mmrec.demo import results_table, run_demo
from mmrec.errors import DataError


def test_the_demo_stops_with_the_exit_code_of_the_first_step_that_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    typed: list[list[str]] = []

    def run(arguments: list[str]) -> int:
        typed.append(arguments)
        return main(arguments) if arguments[0] == "ingest" else 7

    assert run_demo(tmp_path / "demo", run, num_items=40, num_users=10) == 7
    assert [arguments[:2] for arguments in typed] == [["ingest", "--items"], ["train", "hybrid"]]
    assert (tmp_path / "demo" / "dataset" / "manifest.json").is_file()
    assert f"$ mmrec train hybrid --data {tmp_path / 'demo' / 'dataset'}" in capsys.readouterr().out


def test_a_folder_that_exists_is_left_alone(tmp_path: Path):
    with pytest.raises(DataError, match=r"exists; remove it or give another --out"):
        run_demo(tmp_path, main)


def test_without_a_folder_the_next_free_name_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for expected in ("demo", "demo-2"):
        assert run_demo(None, lambda arguments: 7, num_items=40, num_users=10) == 7
        assert (tmp_path / expected / "world").is_dir()


def test_the_table_shows_overall_and_new_items_of_every_method():
    def measured(hit_rate: float, cold: float) -> dict[str, Any]:
        return {
            "metrics": {"hr@10": hit_rate, "ndcg@10": hit_rate / 2},
            "slices": {"cold_items": {"metrics": {"hr@10": cold}}},
        }

    baselines = {"item_knn": measured(0.2, 0.0), "random": measured(0.025, 0.026)}
    table = results_table(
        {
            "hybrid": measured(0.5, 0.3) | {"baselines": baselines},
            "content": measured(0.4, 0.5) | {"baselines": {}},
            "id": measured(0.3, 0.01) | {"baselines": {}},
        }
    )
    console = Console(width=100)
    with console.capture() as shown:
        console.print(table)
    rows = [line.split() for line in shown.get().splitlines()]
    cells = [[word for word in row if word not in "│┃"] for row in rows]
    assert ["mmrec", "hybrid", "0.500", "0.250", "0.300"] in cells
    assert ["mmrec", "content", "0.400", "0.200", "0.500"] in cells
    assert ["mmrec", "id", "only", "0.300", "0.150", "0.010"] in cells
    assert cells.index(["item", "knn", "0.200", "0.100", "0.000"]) < cells.index(["random", "0.025", "0.013", "0.026"])


@pytest.mark.slow
def test_the_whole_demo_runs_on_a_smaller_world(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run_demo(tmp_path / "demo", main, num_items=100, num_users=100) == 0
    assert "mmrec content" in capsys.readouterr().out
    assert (tmp_path / "demo" / "results-hybrid" / "report.html").is_file()
