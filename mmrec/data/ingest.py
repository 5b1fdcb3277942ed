"""``mmrec ingest``: from one's own tables, media files and vectors to a dataset folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mmrec.data.build_dataset import Sources, build_dataset
from mmrec.data.build_settings import BuildConfig, BuildSettings
from mmrec.data.dataset import Dataset
from mmrec.data.feature_sets import parse_feature_options
from mmrec.data.tables import scan_table

__all__ = ["IngestConfig", "ingest"]


@dataclass(frozen=True, kw_only=True)
class IngestConfig(BuildConfig):
    """Build a dataset folder from an item table, an interaction table, media files and ready-made vectors."""

    interactions: Path
    """Interaction table (.parquet, .csv): user_id, item_id, and timestamp or position; optionally rating, weight,
    split."""
    items: Path | None = None
    """Item table (.parquet, .csv): item_id, any of text, image, audio, video (paths; empty = missing), attributes.
    Without one, the items are those of the interactions, and known by their ids alone."""
    media_root: Path | None = None
    """Folder that the media paths start from; the item table's own folder if not given."""
    features: tuple[str, ...] = ()
    """Vectors made elsewhere, NAME=vectors.npy: float, one row for each row of the item table, NaN = missing."""
    text_columns: tuple[str, ...] | None = None
    """Columns that make up an item's text (title,description), joined line by line; the first is shown as the title;
    text if not given."""
    image_column: str | None = None
    """Column with paths of pictures; image if not given."""
    audio_column: str | None = None
    """Column with paths of sound files; audio if not given."""
    video_column: str | None = None
    """Column with paths of video clips; video if not given."""
    unknown_items: Literal["error", "drop"] | None = None
    """What to do with events whose item the item table lacks: error if not given; drop records them in
    errors.parquet."""
    append_to: Path | None = None
    """A dataset folder or URL to which the items and interactions are added; `out` becomes the new version, which
    shares its shards and its settings. Only new items; vectors only of the kinds that it has; no k-core, which is that
    of all events."""
    name: str | None = None
    """Name of the dataset; the name of the tables' folder if not given."""
    source: str | None = None
    """Where the data comes from, for the manifest."""
    licence: str | None = None
    """Under which terms the data may be used, for the manifest."""

    @property
    def table(self) -> Path:
        """The table whose folder names the dataset and holds its media."""
        return self.items or self.interactions

    def content(self) -> dict[str, Any]:
        given = super().content()
        if self.text_columns is not None:  # with commas or spaces between them
            given["text_columns"] = tuple(name for entry in self.text_columns for name in entry.split(",") if name)
        return given


def ingest(config: IngestConfig) -> Path:
    """Build the dataset folder ``config.out`` and return it, as :func:`build_dataset` does.

    Raises: DataError, ConfigError as there.
    """
    former = None if config.append_to is None else Dataset.open(config.append_to)
    given = config.content()
    settings = (
        BuildSettings(**given) if former is None else BuildSettings.after(given, former.manifest["build"], former.place)
    )
    as_written = ("item_id", *settings.text_columns, *settings.media_columns.values())
    return build_dataset(
        config,
        settings,
        Sources(
            interactions=scan_table(config.interactions, ("user_id", "item_id")),
            items=None if config.items is None else scan_table(config.items, as_written),
            media_root=config.media_root if config.media_root is not None else config.table.parent,
            features=parse_feature_options(config.features),
            former=former,
            name=config.name or (None if former else config.table.resolve().parent.name),
            source=config.source,
            licence=config.licence,
        ),
    )
