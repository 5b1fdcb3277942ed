"""Checkpoint folders: written whole or not at all, and resumed from exactly.

Layout of a run (checkpoints/README.md tells the format in full)::

    RUN/step-00000120/   model.safetensors config.json preprocessing/ training_state/ dataset.json README.md
    RUN/latest           link to the newest checkpoint
    RUN/best             link to the one with the best validation metric
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mmrec.config import to_dict
from mmrec.data.dataset import Dataset
from mmrec.errors import CheckpointError
from mmrec.model import Recommender, save_model
from mmrec.training.config import TrainConfig
from mmrec.training.model_card import model_card

__all__ = ["TOWER_OUTPUTS", "RunState", "check_dataset", "find_checkpoint", "load_training_state", "save_checkpoint"]


TOWER_OUTPUTS = "tower_outputs.pt"
# Settings that may change when a run goes on.
_FREE = ("out", "data", "max_epochs", "tower_epochs", "patience", "checkpoint_steps", "feature_cache")


@dataclass
class RunState:
    """Where a run stands. ``epoch`` and ``step_in_epoch`` name the next step to take.

    ``tower_epoch`` and ``tower_step`` are those from which on the towers learn, -1 as long as they rest.
    """

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    tower_epoch: int = -1
    tower_step: int = -1
    best_metric: float = -1.0
    best_epoch: int = -1
    best_step: int = -1
    seconds: float = 0.0


def save_checkpoint(
    run: Path,
    model: Recommender,
    optimizer: torch.optim.Optimizer,
    config: TrainConfig,
    dataset: Dataset,
    state: RunState,
    validation: dict[str, float],
    *,
    save_outputs: Callable[[Path], None] | None = None,
) -> Path:
    """Write a checkpoint, move ``latest`` (and ``best``) to it, remove those that neither names.

    The folder appears under its name only when every byte of it is on the disk.

    Args:
        save_outputs: writes what towers made of media before the epoch began, where the run could not go on without.
    """
    folder = run / f"step-{state.step:08d}"
    temporary = run / f".{folder.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    (temporary / "training_state").mkdir(parents=True)
    save_model(model, temporary, to_dict(config))
    torch.save(optimizer.state_dict(), temporary / "training_state" / "optimizer.pt")
    if model.bank is not None:
        torch.save(model.bank[1], temporary / "training_state" / "bank.pt")
    if save_outputs is not None:
        save_outputs(temporary / "training_state" / TOWER_OUTPUTS)
    _write_json(temporary / "training_state" / "state.json", asdict(state))
    _write_json(temporary / "dataset.json", dataset_record(dataset))
    (temporary / "README.md").write_text(model_card(model, config, dataset, state, validation))
    _flush(temporary)
    # Left by a run that was killed before `latest` moved here; that run went on from an earlier checkpoint.
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    _flush(run, contents=False)
    _point(run / "latest", folder)
    if state.best_step == state.step:
        _point(run / "best", folder)
    keep = {(run / name).resolve().name for name in ("latest", "best") if (run / name).exists()}
    for old in run.glob("step-*"):
        if old.name not in keep:
            shutil.rmtree(old)
    return folder


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that ``path`` means: a checkpoint folder itself, or the best one of a run folder.

    Raises: CheckpointError if there is none.
    """
    for candidate in (path, path / "best", path / "latest"):
        if (candidate / "model.safetensors").is_file():
            return candidate.resolve()
    raise CheckpointError(
        f"{path} holds no checkpoint; give a run folder of `mmrec train` or one of its step-* folders"
    )


def load_training_state(folder: Path, config: TrainConfig) -> tuple[RunState, dict[str, Any]]:
    """State of the run and of the optimiser in a checkpoint.

    Raises: CheckpointError if the checkpoint was trained with other settings than ``config``.
    """
    stored = json.loads((folder / "config.json").read_text())
    given = json.loads(json.dumps(to_dict(config)))
    for key in sorted(set(stored) | set(given)):
        if key not in _FREE and stored.get(key) != given.get(key):
            raise CheckpointError(
                f"{folder.parent} was trained with another setting of `{key}` "
                f"({_short(stored.get(key))} there, {_short(given.get(key))} now); "
                "use the same settings or another --out"
            )
    state = RunState(**json.loads((folder / "training_state" / "state.json").read_text()))
    optimizer = torch.load(folder / "training_state" / "optimizer.pt", map_location="cpu", weights_only=True)
    return state, optimizer


def dataset_record(dataset: Dataset) -> dict[str, Any]:
    """What a checkpoint keeps of its data: enough to refuse another dataset."""
    return {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "num_items": dataset.num_items,
        "num_users": dataset.num_users,
        "order": dataset.sequences.order,
    }


def check_dataset(folder: Path, dataset: Dataset) -> None:
    """Item indices of another dataset would mean other items.

    Raises: CheckpointError if the checkpoint was not trained on this dataset.
    """
    stored = json.loads((folder / "dataset.json").read_text())
    if stored["fingerprint"] != dataset.fingerprint:
        raise CheckpointError(
            f"{folder} was trained on {stored['name']!r} ({stored['fingerprint'][:12]}), "
            f"but {dataset.path} is {dataset.name!r} ({dataset.fingerprint[:12]}); "
            "give the dataset that it was trained on"
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1))


def _flush(folder: Path, *, contents: bool = True) -> None:
    for path in [folder, *(folder.rglob("*") if contents else ())]:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def _point(link: Path, folder: Path) -> None:
    """Move a relative symbolic link in one step."""
    temporary = link.with_name(f".{link.name}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(folder.name)
    temporary.replace(link)
