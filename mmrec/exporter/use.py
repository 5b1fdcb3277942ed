"""How to use the vectors of an export: for its manifest, and in words for its README.md."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mmrec.data.dataset import Dataset

if TYPE_CHECKING:
    from mmrec.model import Recommender

__all__ = ["UserSide", "model_card"]


@dataclass(frozen=True, kw_only=True)
class UserSide:
    """What makes a user vector for these item vectors.

    Attributes:
        encoder: name of the user encoder.
        max_history: events that it reads, the last ones.
        reads_times: whether it needs the times of the events.
        query_time: whether it is told when the next item is asked for.
    """

    encoder: str
    max_history: int
    reads_times: bool
    query_time: bool

    @classmethod
    def of(cls, model: Recommender, dataset: Dataset) -> UserSide:
        """The user side of a model that was trained on this dataset."""
        from mmrec.user_encoders import USER_ENCODERS

        names = {kind: name for name, kind in USER_ENCODERS.items()}
        encoder = model.user_encoder
        return cls(
            encoder=names[type(model.config.user_encoder)],
            max_history=encoder.max_length,
            reads_times=encoder.reads_times and dataset.sequences.order == "timestamp",
            query_time=encoder.query_time,
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def model_card(manifest: dict[str, Any], dataset: Dataset) -> str:
    """README.md of an export: what it is, where it comes from, how to load it, what it is for and what not."""
    name, num_items, dim = dataset.name, manifest["num_items"], manifest["dim"]
    licence = dataset.manifest.get("licence") or "not stated"
    source = dataset.manifest.get("source") or "not stated"
    length = "of length 1" if manifest["normalised"] else "of any length"
    return f"""# Item vectors of {name}

{num_items:,} items, {dim} dimensions, made by mmrec from {_listed(manifest["modalities"])}. An item that lacks some of
them has its vector from the rest; the column `modalities` tells which (bit m: modality m of `manifest.json`).

- model: `{manifest["model_hash"][:16]}`; how it was trained and validated: `model/README.md`
- data: {name}, fingerprint `{dataset.fingerprint[:16]}`; source: {source}; licence of the data: {licence}
- metric: inner product, larger is nearer; the vectors are {length}
- numbers: {manifest["dtype"]}; {manifest["decode"]}{_cost(manifest["recall_at_10"])}
- users: {_user_side(manifest["user_side"])}

## Load

```python
import mmrec
engine = mmrec.load("PATH OF THIS FOLDER")
vectors, item_ids = engine.export.vectors, engine.export.item_ids  # float32 ({num_items}, {dim})
```

Without mmrec: the Parquet files of `embeddings/` hold item_id, vector, modalities and source_hash, in the order of
`items.parquet`, which holds titles and attributes. `manifest.json` has size and sha256 of every file.

## Intended use

Recommending, search by example and near-duplicate search among these items; encoding new items and users into the same
space with `model/`. Take item and user vectors of one `model_hash` only: vectors of another training do not compare.

## Limits

The vectors know what the training data knew: users, items and times unlike those are served worse, and what was
popular then is favoured. They tell preferences, which may be personal data of those who had them; they are no basis for
decisions about people. Whatever binds the data ({licence}) binds what was learnt from them.
"""


def _listed(names: list[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names)


def _cost(recall: dict[str, Any] | None) -> str:
    if recall is None:
        return ""
    return f"; of the ten nearest items by float32, {recall['value']:.3f} are found (among {recall['among']:,} items)"


def _user_side(side: dict[str, Any] | None) -> str:
    if side is None:
        return "none; these are vectors of items alone"
    told = " It is told the moment for which it is asked." if side["query_time"] else ""
    times = " and when they were taken" if side["reads_times"] else ""
    return (
        f"the {side['encoder']} encoder of `model/` makes a user's vector from the vectors of the items taken{times}, "
        f"oldest first, the last {side['max_history']:,} at most.{told} {json.dumps(side, sort_keys=True)}"
    )
