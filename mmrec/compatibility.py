"""A new model beside the vectors of an earlier export: what it stays near, and which may be mixed.

Vectors of two models that were trained apart have nothing to do with each other; their inner products are noise that
looks like scores. A model trained with ``--compatible-with EXPORT`` stays near the vectors of that export, and its
checkpoint says so in ``compatibility.json``: {"model_hash": of the export's model}.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from mmrec.errors import CheckpointError, ConfigError, DataError
from mmrec.export_folder import ExportFolder
from mmrec.model import model_hash

__all__ = ["COMPATIBILITY", "check_compatible", "compatibility_record", "earlier_vectors"]

COMPATIBILITY = "compatibility.json"


def earlier_vectors(export: Path, item_ids: Iterable[str], dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors of a dataset's items in an earlier export, ("V", "D"), and which items it has, ("V",).

    Raises: DataError if the folder is no export, or has none of the items; ConfigError if its width is another.
    """
    folder = ExportFolder.open(export)
    if folder.dim != dim:
        raise ConfigError(
            f"{export} has vectors of {folder.dim} dimensions, this model of {dim}; compatible ones are of one width: "
            f"give --model.item-encoder.dim {folder.dim}"
        )
    row_of = {item: row for row, item in enumerate(folder.item_ids.tolist())}
    rows = np.array([row_of.get(str(item), -1) for item in item_ids])
    if not (rows >= 0).any():
        raise DataError(f"{export} has none of the dataset's items; give an export of the same catalogue")
    return torch.from_numpy(folder.vectors[np.maximum(rows, 0)]), torch.from_numpy(rows >= 0)


def compatibility_record(export: Path) -> dict[str, str]:
    """What a checkpoint keeps of the export that it was trained to be compatible with."""
    return {"model_hash": ExportFolder.open(export).manifest["model_hash"]}


def check_compatible(model: Path, export: ExportFolder) -> None:
    """Refuse users of a model that has nothing to do with an export's vectors.

    Args:
        model: checkpoint folder whose user encoder is to be used with the export.

    Raises: CheckpointError if the model neither made the export nor was trained to be compatible with it.
    """
    made_by, mine = export.manifest["model_hash"], model_hash(model)
    record = model / COMPATIBILITY
    near = json.loads(record.read_text())["model_hash"] if record.is_file() else None
    if made_by not in (mine, near):
        raise CheckpointError(
            f"{model} is model {mine[:12]}, {export.path} was made by {made_by[:12]}: their vectors cannot be "
            f"compared; export this model, or train it with --compatible-with {export.path}"
        )
