"""The vectors that an evaluation ranks: of a trained model, or of an export and nothing else."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from mmrec.blend import Blend, fit_blend, refit_blend
from mmrec.compatibility import check_compatible
from mmrec.data.dataset import Dataset
from mmrec.data.splits import Split, SplitName, make_split
from mmrec.errors import DataError
from mmrec.evaluator import Part, queries_of
from mmrec.explanation import explain_items
from mmrec.export_folder import ExportFolder
from mmrec.inference import encode_catalog, encode_histories, use_feature_caches
from mmrec.item_inputs import CatalogInputs
from mmrec.matryoshka import check_width, narrow
from mmrec.model import Recommender, load_model, load_user_encoder, model_hash
from mmrec.test_reads import claim_test_read
from mmrec.training.checkpoint import check_dataset, find_checkpoint
from mmrec.user_encoders import UserEncoder

__all__ = ["Vectors", "open_checkpoint", "stored_split", "vectors_of_checkpoint", "vectors_of_export"]


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """Vectors of all queries of a part and of the whole catalogue, with where they come from.

    Attributes:
        users: row q belongs to query q. (Q, D)
        items: row v belongs to item_idx v. (V, D)
        model: name, folder and hash of the model.
        cost: seconds, device, peak memory.
        query_time: whether the model was told when each item was taken.
        user_encoder: made ``users`` from ``items``.
        refit_of: of a refit, the run whose steps were chosen on validation.
        shares: by modality, its share of the weights that fusion gives for the items asked for, (n,) each; None for an
            export, whose vectors are made already.
        split_name, split_quantile: of ``split``, as in the configuration of the run.
    """

    dataset: Dataset
    split: Split
    users: torch.Tensor
    items: torch.Tensor
    model: dict[str, Any]
    cost: dict[str, Any]
    query_time: Literal["unknown", "known"]
    user_encoder: UserEncoder
    refit_of: Path | None
    shares: Callable[[np.ndarray], dict[str, np.ndarray]] | None
    split_name: SplitName
    split_quantile: float

    def blend(self) -> Blend:
        """The model's scores with those of a counting baseline, chosen on the validation queries.

        Of a refit, which has learnt the validation events by heart, the settings are those of the plain run, and the
        counts those of its own training events.

        Raises: ConfigError if the split has no validation part; CheckpointError if the plain run of a refit is gone.
        """
        if self.refit_of is not None:
            plain = vectors_of_checkpoint(self.refit_of, Path(self.dataset.place), "valid").blend()
            return refit_blend(plain.settings, self.split, len(self.items))
        valid = self.split.valid
        users = encode_histories(self.user_encoder, self.items, valid.history, query_times=valid.times)
        return fit_blend(self.split, users, self.items)


def open_checkpoint(
    checkpoint: Path, data: Path, *, cache_bytes: int = 4 << 30
) -> tuple[Path, Dataset, Recommender, CatalogInputs]:
    """The checkpoint folder, the dataset, the model in evaluation mode, and the dataset's items as it reads them.

    Args:
        cache_bytes: samples of media kept in memory at most.

    Raises: CheckpointError if there is no checkpoint, or if it was trained on other data.
    """
    folder = find_checkpoint(checkpoint)
    dataset = Dataset.open(data)
    check_dataset(folder, dataset)
    model = load_model(folder)
    return folder, dataset, model, CatalogInputs(dataset, model.inputs, cache_bytes=cache_bytes)


def vectors_of_checkpoint(checkpoint: Path, data: Path, part: Part, *, dim: int | None = None) -> Vectors:
    """Encode catalogue and histories with the model of a run folder or checkpoint folder.

    Args:
        dim: width to which the vectors are cut, one that the model was trained at; None: whole.

    Raises: CheckpointError if there is none, or if it was trained on other data; ConfigError for another width.
    """
    folder, dataset, model, catalog = open_checkpoint(checkpoint, data)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    started = time.perf_counter()
    use_feature_caches(model, catalog, fill=False)
    width = model.config.item_encoder.dim if dim is None else dim
    check_width(width, model.config.matryoshka, model.config.item_encoder.dim)
    items = narrow(encode_catalog(model, catalog, np.arange(dataset.num_items)), width)
    seconds = {"encode_items_s": time.perf_counter() - started}
    found = _with_users(folder, dataset, items, model.user_encoder, part, seconds)

    def shares(item_idx: np.ndarray) -> dict[str, np.ndarray]:
        explained = explain_items(model, catalog, item_idx)
        return dict(zip(explained.modalities, explained.share.T, strict=True))

    return replace(found, shares=shares)


def vectors_of_export(export: Path, data: Path, part: Part, *, users_of: Path | None = None) -> Vectors:
    """Take the catalogue from an export's parts and encode histories with the user encoder that it carries.

    Args:
        users_of: checkpoint whose user encoder reads the histories in its place, from the export's vectors.

    Raises: DataError if the export is of another dataset; CheckpointError if the checkpoint is not compatible with it.
    """
    opened = ExportFolder.open(export, verify=True)
    dataset = Dataset.open(data)
    check_dataset(opened.path / "model", dataset)
    if opened.num_items != dataset.num_items:
        raise DataError(f"{export} has {opened.num_items:,} items, {data} has {dataset.num_items:,}; export again")
    items = torch.from_numpy(opened.vectors_of(dataset.item_ids))
    folder = opened.path / "model"
    if users_of is not None:
        folder = find_checkpoint(users_of)
        check_dataset(folder, dataset)
        check_compatible(folder, opened)
    return _with_users(folder, dataset, items, load_user_encoder(folder), part, {})


def stored_split(folder: Path, dataset: Dataset) -> Split:
    """The split that the checkpoint was trained with."""
    config = json.loads((folder / "config.json").read_text())
    name, quantile = config["split"], config["split_quantile"]
    return make_split(
        dataset.sequences, dataset.num_items, name, quantile=quantile, refit=config["refit_of"] is not None
    )


def _with_users(
    folder: Path,
    dataset: Dataset,
    items: torch.Tensor,
    user_encoder: UserEncoder,
    part: Part,
    seconds: dict[str, float],
) -> Vectors:
    config = json.loads((folder / "config.json").read_text())
    split = stored_split(folder, dataset)
    started = time.perf_counter()
    queries = queries_of(split, part)
    users = encode_histories(user_encoder, items, queries.history, query_times=queries.times)
    if part == "test":  # an export, and a refit, are of the run that made them
        for run in filter(None, (str(folder), config["out"], config["refit_of"])):
            claim_test_read(Path(run))
    cost: dict[str, Any] = {
        **_training_cost(folder),
        **seconds,
        "encode_users_s": time.perf_counter() - started,
        "device": torch.cuda.get_device_name() if items.is_cuda else "CPU",
        "threads": torch.get_num_threads(),
    }
    model = {"name": config["name"], "folder": folder.parent.name, "hash": model_hash(folder), "seed": config["seed"]}
    query_time = "known" if user_encoder.query_time else "unknown"
    return Vectors(
        dataset=dataset,
        split=split,
        users=users,
        items=items,
        model=model,
        cost=cost,
        query_time=query_time,
        user_encoder=user_encoder,
        refit_of=Path(config["refit_of"]) if config["refit_of"] else None,
        shares=None,
        split_name=config["split"],
        split_quantile=config["split_quantile"],
    )


def _training_cost(folder: Path) -> dict[str, Any]:
    """What the run cost, to its end: its ledger, or, of a checkpoint without a run around it, the seconds up to it."""
    ledger, state = folder.parent / "cost.json", folder / "training_state" / "state.json"
    if ledger.is_file():
        spent = json.loads(ledger.read_text())
        return {"training_s": spent["seconds"], "training": spent}
    return {"training_s": json.loads(state.read_text())["seconds"]} if state.is_file() else {}
