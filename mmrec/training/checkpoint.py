"""Checkpoint folders: found, verified, and resumed from exactly.

Layout of a run (checkpoints/README.md tells the format in full)::

    RUN/step-00000120/   model.safetensors config.json preprocessing/ training_state/ dataset.json README.md files.json
    RUN/latest           link to the newest checkpoint
    RUN/best             link to the one with the best validation metric
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import xxhash

from mmrec.config import to_dict
from mmrec.data.dataset import Dataset
from mmrec.errors import CheckpointError
from mmrec.training.config import TrainConfig
from mmrec.training.run_mirror import fetch_run, is_url

__all__ = [
    "FILES",
    "RunState",
    "binding_settings",
    "check_dataset",
    "dataset_record",
    "file_hash",
    "find_checkpoint",
    "load_run_state",
    "load_tensors",
    "newest_whole",
    "problem_of",
]

logger = logging.getLogger(__name__)

FILES = "files.json"
# Settings that may change when a run goes on.
_FREE = (
    "out", "data", "max_epochs", "tower_epochs", "patience", "checkpoint_steps", "keep_checkpoints",
    "feature_cache", "trackers", "profile_steps", "timeout_s", "compile",
)  # fmt: skip


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
    cost: dict[str, float] = field(default_factory=dict)
    """Sums over the run of what :meth:`add_cost` was told, by name."""

    def add_cost(self, **amounts: float) -> None:
        for name, amount in amounts.items():
            self.cost[name] = self.cost.get(name, 0.0) + amount


def find_checkpoint(path: Path | str) -> Path:
    """The checkpoint that ``path`` means: a checkpoint folder itself, or the best one of a run folder, verified.

    Args:
        path: a folder, or the URL of a run, which is copied first.

    Raises: CheckpointError if there is none, or if what evaluation needs of it is damaged.
    """
    folder = fetch_run(str(path)) if is_url(path) else Path(path)
    for candidate in (folder, folder / "best", folder / "latest"):
        if not (candidate / "model.safetensors").is_file():
            continue
        found = candidate.resolve()
        problem = problem_of(found, training_state=False)
        if problem is not None:
            others = sorted(other.name for other in found.parent.glob("step-*") if other != found)
            instead = f"; others are there: {', '.join(others)}" if others else ""
            raise CheckpointError(f"{found} is damaged: {problem}{instead}")
        return found
    raise CheckpointError(
        f"{path} holds no checkpoint; give a run folder of `mmrec train` or one of its step-* folders"
    )


def newest_whole(run: Path) -> Path | None:
    """The checkpoint from which a run goes on: the latest, or, if that is damaged, the one before; None for a new run.

    Raises: CheckpointError if there are checkpoints and all of them are damaged.
    """
    latest = (run / "latest").resolve() if (run / "latest").exists() else None
    others = sorted((folder for folder in run.glob("step-*") if folder != latest), reverse=True)
    if latest is not None:  # what is newer than `latest` was left by a run that was killed before it moved there
        others = [latest, *(folder for folder in others if folder.name < latest.name)]
    problems = []
    for folder in others:
        problem = problem_of(folder, training_state=True)
        if problem is None:
            for said in problems:
                logger.warning("%s; going on from the checkpoint before, %s", said, folder.name)
            return folder
        problems.append(f"{folder} is damaged: {problem}")
    if problems:
        raise CheckpointError(
            f"{problems[0]}; no other checkpoint of the run is whole; give another --out to begin anew"
        )
    return None


def problem_of(folder: Path, *, training_state: bool) -> str | None:
    """What is wrong with the files of a checkpoint, in one line; None if all are as they were written.

    Args:
        training_state: whether what only resuming needs is looked at too.
    """
    try:
        listed = json.loads((folder / FILES).read_text())
        for name, entry in listed.items():
            path = folder / name
            if name.startswith("training_state/") and not training_state:
                continue
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != entry["bytes"] or file_hash(path) != entry["xxh3"]:
                return f"{name} is not what was written"
    except FileNotFoundError:
        return f"{FILES} is missing"
    except (ValueError, TypeError, KeyError, AttributeError):
        return f"{FILES} cannot be read"
    return None


def file_hash(path: Path) -> str:
    """XXH3, 128 bits, of the bytes of a file: guards against damage, not against malice."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def load_run_state(folder: Path, config: TrainConfig) -> RunState:
    """State of the run in a checkpoint.

    Raises: CheckpointError if the checkpoint was trained with other settings than ``config``.
    """
    stored = _binding(json.loads((folder / "config.json").read_text()))
    for where, before, now in _differences(stored, binding_settings(config)):
        raise CheckpointError(
            f"{folder.parent} was trained with another setting of `{where}` ({_short(before)} there, {_short(now)} "
            "now); use the same settings or another --out"
        )
    return RunState(**json.loads((folder / "training_state" / "state.json").read_text()))


def binding_settings(config: TrainConfig) -> dict[str, Any]:
    """The settings, as JSON values, that may not change when a run goes on."""
    return _binding(json.loads(json.dumps(to_dict(config))))


def _binding(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in _FREE}


def load_tensors(folder: Path, name: str, device: torch.device | str = "cpu") -> Any:
    """A file of ``training_state/`` that holds tensors and plain values."""
    return torch.load(folder / "training_state" / name, map_location=device, weights_only=True)


def dataset_record(dataset: Dataset) -> dict[str, Any]:
    """What a checkpoint keeps of its data: enough to refuse another dataset, and to know whether events have times."""
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


def _differences(before: Any, now: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The deepest settings that differ, by their dotted names."""
    if isinstance(before, dict) and isinstance(now, dict) and before.get("kind") == now.get("kind"):
        for key in sorted(set(before) | set(now)):
            yield from _differences(before.get(key), now.get(key), f"{where}.{key}" if where else key)
    elif before != now:
        yield where, before, now


def _short(value: Any) -> str:
    if isinstance(value, dict) and "kind" in value:
        return value["kind"]
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
