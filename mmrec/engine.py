"""The Python interface of a trained model: vectors of new items and users, and answers from an export folder alone.

    engine = mmrec.load("exports/shop")
    engine.encode_items([{"text": "a red lamp", "image": Path("lamp.jpg")}])       # (1, D)
    engine.encode_users([History(items=("P00", "P01"))])                           # (1, D)
    engine.recommend(History(items=("P00", "P01")), k=10)                          # list[Hit]
    engine.search(Query(record={"text": "a red lamp"}), k=10)                      # list[Hit]

`mmrec search`, `recommend`, `serve` and `explore` are thin layers over it. What a call does not need is not loaded: a
search by item reads neither torch nor the model.

Legend: I items, U users, D vector width.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmrec.errors import ConfigError, DataError
from mmrec.export_folder import ExportFolder
from mmrec.index import Hit, recommend, search_by_item, search_by_vector

if TYPE_CHECKING:
    from mmrec.blend import Blend
    from mmrec.item_inputs import Prepare
    from mmrec.user_encoders import UserEncoder

__all__ = ["RAW_MODALITIES", "Engine", "History", "Query"]

# What a new item can come with: a text, and files.
RAW_MODALITIES = frozenset({"text", "image", "audio", "video"})


@dataclass(frozen=True, kw_only=True)
class History:
    """What a user took.

    Attributes:
        items: item ids, oldest first.
        times: when each was taken, seconds since 1970; for models that read times.
        at: when the next item is asked for, seconds since 1970; None: now. For models that are told.
    """

    items: tuple[str, ...]
    times: tuple[int, ...] | None = None
    at: int | None = None

    def __post_init__(self) -> None:
        if self.times is not None and len(self.times) != len(self.items):
            raise ConfigError(f"{len(self.times)} times were given for {len(self.items)} items; give one for each")


@dataclass(frozen=True, kw_only=True)
class Query:
    """What to search near: an item of the export, or a new item.

    Attributes:
        item: id of an item of the export.
        record: raw values of a new item by modality: text as a string; image, audio, video as bytes or a path.
    """

    item: str | None = None
    record: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.item is None) == (not self.record):
            raise ConfigError("give either an item id, or text and media of a new item; not both, not neither")


class Engine:
    """Answers from an export folder.

    Args:
        export: the opened folder.
        prepare: makes an encoder's input of a raw value, given the preprocessing and the value; a server lets another
            process do it. The default does it here.
    """

    def __init__(self, export: ExportFolder, *, prepare: Prepare | None = None) -> None:
        self.export = export
        self._prepare = prepare
        self._loaded: frozenset[str] | None = None

    @classmethod
    def open(cls, path: Path | str) -> Engine:
        """Raises: DataError if the folder is no finished export, or damaged."""
        return cls(ExportFolder.open(path))

    def load(self) -> None:
        """Read now whatever an answer may need: afterwards none reads a file, and the folder may change.

        From then on one model of all modalities encodes new items.
        """
        first = str(self.export.id_column[0])
        self.export.vectors_of([first])
        self.search(Query(item=first), k=1)
        self.recommend(History(items=(first,), times=(0,), at=0), k=1)
        self._loaded = frozenset(self.export.manifest["modalities"]) & RAW_MODALITIES
        self._item_model(self._loaded)

    def encode_items(self, records: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Unit vectors of new items, float32 (I, D); only the encoders that they need are loaded.

        Args:
            records: raw values by modality, as in :class:`Query`; a missing key is a missing modality.

        Raises: MediaError if a medium cannot be used; ConfigError if the model does not encode a modality.
        """
        import torch

        records = [{name: _bytes(name, value) for name, value in record.items()} for record in records]
        model = self._item_model(self._loaded or frozenset(name for record in records for name in record))
        with torch.inference_mode():
            return model.encode_items(model.inputs.from_records(records, self._prepare)).numpy()

    def encode_users(self, histories: Sequence[History]) -> np.ndarray:
        """Unit vectors of users after their last event, float32 (U, D); zero for a user without events.

        Raises: DataError if an item is unknown; ConfigError if the model needs times that are not given.
        """
        return np.stack([self._encode_user(history) for history in histories])

    def search(self, query: Query, k: int = 10) -> list[Hit]:
        """The ``k`` nearest items, without the queried item itself."""
        if query.item is not None:
            return search_by_item(self.export, query.item, k)
        return search_by_vector(self.export, self.encode_items([query.record])[0], k)

    def recommend(self, history: History, k: int = 10, *, blend: bool = True) -> list[Hit]:
        """The ``k`` best items for a user, without those of the history.

        Args:
            blend: add the exported counts to the scores, where the export has them.
        """
        user = self.encode_users([history])[0]
        bonus = None
        if blend and self._blend is not None:
            bonus = self._blend.bonus(np.array([self.export.item_index(item) for item in history.items]))
        return recommend(self.export, user, k, exclude=set(history.items), bonus=bonus)

    def _encode_user(self, history: History) -> np.ndarray:
        import torch

        from mmrec.inference import encode_history

        if self.reads_times and history.times is None:
            raise ConfigError("this model reads when items were taken; give a time for each (seconds since 1970)")
        return encode_history(
            self._user_encoder,
            torch.from_numpy(self.export.vectors_of(history.items)),
            None if history.times is None else np.array(history.times, dtype=np.int64),
            query_time=int(time.time()) if history.at is None else history.at,
        ).numpy()

    @property
    def reads_times(self) -> bool:
        """Whether histories must carry times."""
        return self._user_encoder.reads_times and self._trained_on["order"] == "timestamp"

    @functools.cached_property
    def _trained_on(self) -> dict[str, Any]:
        return json.loads((self.export.path / "model" / "dataset.json").read_text())

    @functools.cached_property
    def _user_encoder(self) -> UserEncoder:
        from mmrec.model import load_user_encoder

        return load_user_encoder(self.export.path / "model")

    @functools.cached_property
    def _blend(self) -> Blend | None:
        if "model/blend.json" not in self.export.files:
            return None
        from mmrec.blend import Blend

        return Blend.load(self.export.path / "model")

    @functools.lru_cache(maxsize=16)  # noqa: B019 - one engine lives as long as its models
    def _item_model(self, modalities: frozenset[str]) -> Any:
        from mmrec.model import load_model

        return load_model(self.export.path / "model", only=modalities)


def _bytes(name: str, value: Any) -> Any:
    """A medium given by its path, read."""
    if not isinstance(value, Path):
        return value
    if not value.is_file():
        raise DataError(f"{name} {value} is no file; give the path of one")
    return value.read_bytes()
