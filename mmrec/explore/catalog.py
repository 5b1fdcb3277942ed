"""What the page shows of items: cards, thumbnails and media, of an export and the dataset beside it.

An export has titles, attributes and which modalities an item has; pictures, sounds and clips come from a dataset, if
one is given.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from mmrec.data.audit.thumbnails import PICTURED, item_thumbnail
from mmrec.data.dataset import Dataset
from mmrec.errors import DataError
from mmrec.export_folder import ExportFolder
from mmrec.index.removed import remaining_rows

__all__ = ["Catalog", "Medium"]

_SIDE_PX = 400  # of a thumbnail: a card is about 200 wide, screens have two pixels for one
_KEPT_THUMBNAILS = 4096  # about 20 kB each
_MAX_TEXT = 2000  # characters that the page shows of a description
_WORDS_OF_A_LABEL = 4

_CONTENT_TYPES = {
    "jpg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "gif": "image/gif",
    "bmp": "image/bmp",
    "avif": "image/avif",
    "wav": "audio/wav",
    "flac": "audio/flac",
    "mp3": "audio/mpeg",
    "ogg": "audio/ogg",
    "m4a": "audio/mp4",
    "mka": "audio/x-matroska",
    "aac": "audio/aac",
    "mp4": "video/mp4",
    "webm": "video/webm",
    "mkv": "video/x-matroska",
    "mov": "video/quicktime",
}


class Medium:
    """Bytes of one medium and what a browser is told that they are."""

    def __init__(self, data: bytes, content_type: str) -> None:
        self.data = data
        self.content_type = content_type


class Catalog:
    """Items of an export as the page shows them.

    Args:
        export: opened.
        dataset: with the media; None: cards have titles and badges alone.

    Raises: DataError if the dataset has none of the export's items.
    """

    def __init__(self, export: ExportFolder, dataset: Dataset | None = None) -> None:
        self.export = export
        self.dataset = dataset
        if dataset is not None and not np.isin(export.item_ids, dataset.item_ids).any():
            raise DataError(
                f"{dataset.place} has none of the {export.num_items:,} items of {export.path}; "
                f"give the dataset that it was made of ({export.manifest['dataset']['name']})"
            )
        self._thumbnail = functools.lru_cache(maxsize=_KEPT_THUMBNAILS)(self._make_thumbnail)

    def cards(self, item_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Title, modalities, attributes, text, and which media there are to see and play, of each item.

        Raises: DataError if an item is unknown.
        """
        return [self._card(item_id) for item_id in item_ids]

    @functools.cached_property
    def rows(self) -> np.ndarray:
        """Rows of the items that are not removed. int64 (n,)"""
        return remaining_rows(self.export)

    @functools.cached_property
    def prose(self) -> frozenset[str]:
        """Attributes that are read, not counted: columns of strings of many words, most of them of one item alone."""
        found = set()
        for name in self.export.attributes.column_names:
            texts = pl.Series(self.export.attributes[name]).drop_nulls()
            if texts.dtype == pl.String and len(texts) and texts.n_unique() > len(texts) / 2:
                words = texts.str.count_matches(r"\S+").mean()
                if isinstance(words, float) and words > _WORDS_OF_A_LABEL:
                    found.add(name)
        return frozenset(found)

    def thumbnail(self, item_id: str) -> bytes | None:
        """A JPEG; None if nothing of the item can be pictured, or no dataset was given."""
        idx = self._in_dataset(item_id)
        return None if idx is None else self._thumbnail(idx)

    def medium(self, item_id: str, modality: str) -> Medium:
        """The picture, sound or clip as it is stored.

        Raises:
            DataError: if there is no dataset, or the item is not in it or lacks the modality.
            MediaError: if its bytes are damaged.
        """
        idx = self._in_dataset(item_id)
        if self.dataset is None or idx is None:
            raise DataError(f"there are no media of {item_id!r} here; start `mmrec explore` with --data DATASET")
        if modality not in PICTURED or self.dataset.location(modality, idx) is None:
            raise DataError(f"item {item_id!r} has no {modality}")
        data = self.dataset.read(modality, idx)
        assert isinstance(data, bytes)
        ext = self.dataset.attributes[f"{modality}.ext"][idx]
        return Medium(data, _CONTENT_TYPES.get(ext, "application/octet-stream"))

    def _card(self, item_id: str) -> dict[str, Any]:
        row = self.export.item_index(item_id)
        idx = self._in_dataset(item_id)
        media = []
        if self.dataset is not None and idx is not None:
            media = [name for name in PICTURED if self.dataset.location(name, idx) is not None]
        values = self.export.attributes_of(row)
        texts = [value for name, value in values.items() if value and name in self.prose]
        return {
            "item_id": item_id,
            "title": (self.export.title_column[row].as_py().splitlines() or [item_id])[0],
            "modalities": self.export.modalities_of(row),
            "attributes": {
                name: value for name, value in values.items() if value is not None and name not in self.prose
            },
            "text": "\n".join(texts)[:_MAX_TEXT],
            "media": media,
        }

    def _in_dataset(self, item_id: str) -> int | None:
        if self.dataset is None:
            return None
        try:
            return self.dataset.item_index(item_id)
        except DataError:  # the export knows items that the dataset has no more
            return None

    def _make_thumbnail(self, idx: int) -> bytes | None:
        assert self.dataset is not None
        return item_thumbnail(self.dataset, idx, side_px=_SIDE_PX, quality=82)
