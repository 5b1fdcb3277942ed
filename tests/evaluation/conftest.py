"""One job for the tests of this folder, cut in time, so that there are users without history and new items."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mmrec.cli import main

SPLIT = "global_time:quantile=0.7"


@dataclass(frozen=True, kw_only=True)
class Job:
    """Folders of a run, its export, and their evaluations."""

    data: Path
    run: Path
    results: Path
    export: Path
    export_results: Path


@pytest.fixture(scope="session")
def job(tiny_dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    root = tmp_path_factory.mktemp("job")
    made = Job(
        data=tiny_dataset_path, run=root / "run", results=root / "results", export=root / "export",
        export_results=root / "export-results",
    )  # fmt: skip
    data = ["--data", str(made.data)]
    train = ["train", "features", *data, "--split", SPLIT, "--max-epochs", "1", "--trackers"]
    assert main([*train, "--out", str(made.run)]) == 0
    assert main(["evaluate", str(made.run), *data, "--out", str(made.results), "--no-baselines"]) == 0
    assert main(["export", str(made.run), *data, "--out", str(made.export)]) == 0
    from_export = ["evaluate", "--embeddings", str(made.export), *data, "--out", str(made.export_results)]
    assert main([*from_export, "--no-baselines"]) == 0
    return made


def record_of(results: Path) -> dict[str, Any]:
    """The metrics.json of a results folder."""
    return json.loads((results / "metrics.json").read_text())


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line on standard error with which a command is refused."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1
    assert "Traceback" not in error
    return error
