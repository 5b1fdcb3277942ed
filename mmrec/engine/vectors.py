"""From histories, records and ids to vectors: what an engine's answers start from. Safe under threads.

Legend: I items, U users, Q queries, D vector width.
"""

from __future__ import annotations

import functools
import json
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmrec.engine.questions import History, Query
from mmrec.errors import ConfigError, DataError
from mmrec.export_folder import ExportFolder
from mmrec.index import live_rows, vectors_at

if TYPE_CHECKING:
    from mmrec.blend import Blend
    from mmrec.model import Recommender
    from mmrec.user_encoders import UserEncoder

__all__ = ["DISLIKE_SHARE", "Encoders", "away_from", "sum_of_units", "units"]

# How far a user's vector is turned away from the mean of the disliked ones, which has about its length.
DISLIKE_SHARE = 0.5
# A string would be a path, which who sends records over a network has no business to choose.
_WRONG = {"text": (bytes, int, float), "image": str, "audio": str, "video": str}


class Encoders:
    """The models of a checkpoint or export folder, each loaded when it is first needed.

    Args:
        folder: the inference part of a checkpoint.
        export: vectors of the items that histories and queries name; None: there are none.
        users_folder: of another model, whose user encoder reads the histories; None: the same.
    """

    def __init__(self, folder: Path, export: ExportFolder | None, users_folder: Path | None = None) -> None:
        self.folder = folder
        self._users_folder = users_folder or folder
        self._export = export
        self._loading = threading.RLock()
        self._encoding = threading.Lock()  # tokenizers change their settings while they read
        self._model: tuple[frozenset[str], Recommender] | None = None

    @property
    def export(self) -> ExportFolder:
        """Raises: ConfigError if a checkpoint was opened, which has no vectors of items."""
        if self._export is None:
            raise ConfigError(
                f"{self.folder} is a checkpoint and has no item vectors; `mmrec export` makes a folder with them"
            )
        return self._export

    @functools.cached_property
    def modalities(self) -> tuple[str, ...]:
        """What the model encodes new items from."""
        encoders = json.loads((self.folder / "config.json").read_text())["model"]["item_encoder"]["encoders"]
        return tuple(name for name in encoders if name != "item_id")

    @functools.cached_property
    def reads_times(self) -> bool:
        """Whether histories must carry times."""
        if not self.user_encoder.reads_times:
            return False
        return json.loads((self._users_folder / "dataset.json").read_text())["order"] == "timestamp"

    def items(self, records: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Unit vectors of new items, float32 (I, D)."""
        import torch

        from mmrec.matryoshka import narrow

        read = [{name: _value(name, value) for name, value in one.items() if value is not None} for one in records]
        for name in sorted({name for record in read for name in record}):
            if name not in self.modalities:
                known = ", ".join(self.modalities) or "none"
                raise ConfigError(f"this model does not encode {name!r} of new items; it encodes {known}")
        if empty := [n for n, record in enumerate(read) if not record]:
            raise ConfigError(f"record {empty[0] + 1} of {len(read)} is empty; give a text or media of each new item")
        model = self.item_model({name for record in read for name in record})
        with self._encoding, torch.inference_mode():
            vectors = model.encode_items(model.inputs.from_records(read))
            return (vectors if self._export is None else narrow(vectors, self._export.dim)).numpy()

    def users(self, histories: Sequence[History]) -> np.ndarray:
        """Unit vectors of users after their last event, all in one packed pass; float32 (U, D)."""
        import torch

        from mmrec.data.sequences import Sequences, pack
        from mmrec.inference import encode_histories

        timed = self.reads_times
        if timed and any(history.times is None for history in histories):
            raise ConfigError("this model reads when items were taken; give a time for each (seconds since 1970)")
        rows = [self.export.item_rows(history.items) for history in histories]
        distinct, place = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *rows]), return_inverse=True)
        now = int(time.time())
        times = [np.asarray(history.times, dtype=np.int64) for history in histories] if timed else []
        events = Sequences(
            user_ids=np.array([str(n) for n in range(len(histories))]),
            offsets=pack(np.array([len(one) for one in rows], dtype=np.int64)),
            item_idx=place.astype(np.int32),
            timestamps=np.concatenate(times) if timed else None,
            split=None,
            order="timestamp" if timed else "position",
        )
        asked = np.array([now if history.at is None else history.at for history in histories], dtype=np.int64)
        known = vectors_at(self.export, distinct) if len(distinct) else np.zeros((0, self.export.dim), dtype=np.float32)
        vectors = encode_histories(self.user_encoder, torch.from_numpy(known), events, query_times=asked).numpy()
        return np.stack([self._steered(*one) for one in zip(vectors, histories, strict=True)])

    def queries(self, queries: Sequence[Query]) -> np.ndarray:
        """Vectors of queries, float32 (Q, D): of one part its own, of several the direction of the sum of their unit
        vectors; no order of the parts changes a bit of it.

        Raises: DataError if the parts of a query point in opposite directions, and nothing is left; if an item is
            unknown or was removed.
        """
        with_record = [query.record for query in queries if query.record]
        with_history = [query.history for query in queries if query.history is not None]
        of_records = iter(self.items(with_record) if with_record else ())
        of_histories = iter(self.users(with_history) if with_history else ())
        found = []
        for query in queries:
            rows = np.unique(live_rows(self.export, query.items))
            parts = list(vectors_at(self.export, rows)) if len(rows) else []
            parts += [next(of_records)] if query.record else []
            if query.history is not None:
                parts.append(next(of_histories))
                if not np.any(parts[-1]):
                    raise DataError("the history of the query has no events to go on; give at least one item, or none")
            found.append(parts[0] if len(parts) == 1 else sum_of_units(np.stack(parts)))
        return np.stack(found)

    def _steered(self, user: np.ndarray, history: History) -> np.ndarray:
        if not history.disliked:
            return user
        rows = np.unique(self.export.item_rows(history.disliked))
        return away_from(user, vectors_at(self.export, rows)) if np.any(user) else user

    def item_model(self, modalities: Collection[str]) -> Recommender:
        """A model that encodes items from these modalities at least; one is kept, and knows all asked for so far."""
        from mmrec.model import load_model

        with self._loading:
            if self._model is None or not self._model[0] >= set(modalities):
                wanted = frozenset(modalities) | (self._model[0] if self._model else frozenset())
                self._model = wanted, load_model(self.folder, only=wanted)
            return self._model[1]

    @property
    def user_encoder(self) -> UserEncoder:
        with self._loading:
            return self._user_encoder

    @property
    def blend(self) -> Blend | None:
        """What counts add to the scores, where the export has it."""
        with self._loading:
            return self._blend

    @functools.cached_property
    def _user_encoder(self) -> UserEncoder:
        from mmrec.model import load_user_encoder

        return load_user_encoder(self._users_folder)

    @functools.cached_property
    def _blend(self) -> Blend | None:
        if "model/blend.json" not in self.export.files:
            return None
        from mmrec.blend import Blend

        return Blend.load(self.folder)


def away_from(user: np.ndarray, disliked: np.ndarray) -> np.ndarray:
    """A user's vector turned away from what the user dislikes, of unit length again. float32 (D,)

    ``user - DISLIKE_SHARE * mean of the disliked unit vectors``: Rocchio's rule, with the share as its gamma.

    Args:
        user: of unit length. (D,)
        disliked: vectors of at least one item. (n, D)

    Source: Rocchio 1971; Manning et al. 2008, eq. 9.3.
    """
    return _unit(user.astype(np.float64) - DISLIKE_SHARE * units(disliked).mean(axis=0))


def sum_of_units(parts: np.ndarray) -> np.ndarray:
    """The direction of the sum of the parts' unit vectors, float32 (D,); the same bits in every order of the parts.

    Args:
        parts: at least one vector, none of them zero. (n, D)

    Raises: DataError if they cancel each other.
    """
    return _unit(np.sort(units(parts), axis=0).sum(axis=0))  # sorted, for a sum of floats depends on their order


def units(vectors: np.ndarray) -> np.ndarray:
    """Vectors, none of them zero, at unit length. float64 (n, D)"""
    vectors = vectors.astype(np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _unit(vector: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vector)
    if length < 1e-6:  # what float32 leaves of parts that cancel has no direction
        raise DataError("the parts of the query cancel each other and leave nothing to search near; leave one out")
    return (vector / length).astype(np.float32)


def _value(name: str, value: Any) -> Any:
    """A medium given by its path, read; a text that says something."""
    if isinstance(value, Path):
        if not value.is_file():
            raise DataError(f"{name} {value} is no file; give the path of one")
        value = value.read_bytes()
    if isinstance(value, _WRONG.get(name, ())):
        wanted = "a string" if name == "text" else "bytes or a pathlib.Path"
        raise ConfigError(f"the {name} of a new item is of type {type(value).__name__}; give {wanted}")
    if isinstance(value, str | bytes) and not value.strip():
        raise DataError(f"the {name} is empty; give one that holds something, or leave it out")
    return value
