"""``mmrec ingest``: from one's own tables, media files and vectors to a dataset folder."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from mmrec.data.append import append_histories, check_new_items, join_features
from mmrec.data.assemble import NewData, assemble, next_key
from mmrec.data.build import BuildFolder, run_build
from mmrec.data.build_plan import BuildPlan, make_plan
from mmrec.data.dataset import Dataset
from mmrec.data.executors import EXECUTORS
from mmrec.data.feature_sets import load_feature_sets, parse_feature_options
from mmrec.data.interactions import EventFilters, build_histories
from mmrec.data.manifest import MANIFEST, SCHEMA
from mmrec.data.progress import progress
from mmrec.data.tables import read_interactions, read_items
from mmrec.data.units import UnitSettings
from mmrec.errors import ConfigError, DataError
from mmrec.media.normalise import Normalisation
from mmrec.media.source import MediaSource

__all__ = ["IngestConfig", "ingest"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """Build a dataset folder from an item table, an interaction table, media files and ready-made vectors."""

    interactions: Path
    """Interaction table (.parquet, .csv): user_id, item_id, and timestamp or position; optionally rating, split."""
    out: Path
    """The dataset folder to make."""
    items: Path | None = None
    """Item table (.parquet, .csv): item_id, any of text, image, audio, video (paths; empty = missing), attributes.
    Without one, the items are those of the interactions, and known by their ids alone."""
    media_root: Path | None = None
    """Folder that the media paths start from; the item table's own folder if not given."""
    features: tuple[str, ...] = ()
    """Vectors made elsewhere, NAME=vectors.npy: float, one row for each row of the item table, NaN = missing."""
    text_columns: tuple[str, ...] = ("text",)
    """Columns that make up an item's text (title,description), joined line by line; the first is shown as the title."""
    image_column: str = "image"
    """Column with paths of pictures."""
    audio_column: str = "audio"
    """Column with paths of sound files."""
    video_column: str = "video"
    """Column with paths of video clips."""
    min_rating: float | None = None
    """Leave out events with a lower rating."""
    since: str | None = None
    """Leave out events before this moment: a date (UTC) or seconds since 1970."""
    until: str | None = None
    """Leave out events from this moment on."""
    min_user_events: int = 0
    """Leave out users with fewer events, and again until no user and item has fewer (k-core); items stay in the
    catalogue."""
    min_item_events: int = 0
    """Leave out the events of items with fewer, in the same way."""
    unknown_items: Literal["error", "drop"] = "error"
    """What to do with events whose item the item table lacks; drop records each in errors.parquet."""
    append_to: Path | None = None
    """A dataset folder to which the items and interactions are added; `out` becomes the new version, which shares its
    shards. Only new items; vectors only of the kinds that it has."""
    name: str | None = None
    """Name of the dataset; the name of the tables' folder if not given."""
    source: str | None = None
    """Where the data comes from, for the manifest."""
    licence: str | None = None
    """Under which terms the data may be used, for the manifest."""
    seed: int = 0
    """Seed of the permutation that numbers the items."""
    image_side_px: int = 512
    """Pictures with a longer short side are scaled down to it and stored as JPEG; 0 stores all as they are."""
    video_side_px: int = 256
    """Clips with a longer short side, or with keyframes far apart, are coded anew at it; 0 stores all as they are."""
    audio_rate_hz: int = 0
    """Sound is stored as mono FLAC at this rate; 0 stores it as it is."""
    shard_size_mb: int = 128
    """Size of one media shard, in megabytes of source files: one shard is one unit of work."""
    executor: Literal["local", "ray"] = "local"
    """Who does the units: processes of this machine, or the Ray cluster of RAY_ADDRESS (extra `scale`)."""
    num_workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Processes that read, check and normalise media files."""
    overwrite: bool = False
    """Replace the dataset folder that exists."""

    def __post_init__(self) -> None:
        for name, least in (
            ("shard_size_mb", 1), ("num_workers", 1), ("seed", 0),
            ("image_side_px", 0), ("video_side_px", 0), ("audio_rate_hz", 0),
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        assert self.filters
        assert self.rules  # either judges its own settings

    @property
    def table(self) -> Path:
        """The table whose folder names the dataset and holds its media."""
        return self.items or self.interactions

    @property
    def texts(self) -> tuple[str, ...]:
        """``text_columns`` one by one, whether they were given with commas or spaces between them."""
        return tuple(name for entry in self.text_columns for name in entry.split(",") if name)

    @property
    def filters(self) -> EventFilters:
        """Which events count."""
        return EventFilters(
            min_rating=self.min_rating,
            since=self.since,
            until=self.until,
            min_user_events=self.min_user_events,
            min_item_events=self.min_item_events,
        )

    @property
    def rules(self) -> Normalisation:
        """What is done to media."""
        return Normalisation(
            image_side_px=self.image_side_px, video_side_px=self.video_side_px, audio_rate_hz=self.audio_rate_hz
        )

    @property
    def build(self) -> dict[str, object]:
        """The settings that decide what is stored, for the manifest."""
        return {
            "text_columns": list(self.texts),
            "media_columns": [self.image_column, self.audio_column, self.video_column],
            "features": list(parse_feature_options(self.features)),
            **asdict(self.filters),
            "unknown_items": self.unknown_items,
            "seed": self.seed,
            "image_side_px": self.image_side_px,
            "video_side_px": self.video_side_px,
            "audio_rate_hz": self.audio_rate_hz,
            "shard_size_mb": self.shard_size_mb,
        }


def ingest(config: IngestConfig) -> Path:
    """Build the dataset folder ``config.out`` and return it. The same input gives the same bytes.

    Media that cannot be used, and events that are left out, become rows of ``errors.parquet``. The folder appears
    under its name only when it is complete; a build that was killed goes on where it was.

    Raises:
        DataError: if a table cannot be used, or the folder exists.
        ConfigError: if a setting is out of range.
    """
    _refuse_existing(config)
    new = _read_tables(config)
    try:
        counts = _build(config, new)
    except OSError as error:  # no space, no permission
        raise DataError(f"cannot write {config.out}: {error}; choose another --out or make room") from error
    logger.info("%s: %d items, %d users, %d errors", config.out, counts["items"], counts["users"], counts["errors"])
    return config.out


def _read_tables(config: IngestConfig) -> NewData:
    """The user's tables, judged; with a former version, what they add to it."""
    features = parse_feature_options(config.features)
    media_columns = {"image": config.image_column, "audio": config.audio_column, "video": config.video_column}
    former = None if config.append_to is None else Dataset.open(config.append_to)
    interactions = read_interactions(config.interactions)
    if config.items is not None:
        items = read_items(config.items, config.texts, media_columns, ("text", "image", "audio", "video"))
    elif features:
        raise ConfigError("--features need --items: row i of the vectors belongs to row i of the item table")
    elif former is None:
        items = interactions.select("item_id").unique().sort("item_id")
    else:
        items = pl.DataFrame(schema={"item_id": pl.String})
    vectors = load_feature_sets(features, items.height)
    # Index order leaks the target in public files (popular or early items first): items are numbered at random.
    generator = np.random.Generator(np.random.Philox(config.seed))
    row_of = generator.permutation(items.height)
    items = items[row_of]
    number_of = np.arange(items.height)
    if former is not None:
        check_new_items(former, items, config.texts)
        vectors = join_features(former, vectors)
        number_of = generator.permutation(former.num_items + items.height)
        row_of = np.concatenate([np.arange(former.num_items), former.num_items + row_of])[np.argsort(number_of)]
    ids = (
        items["item_id"].to_numpy()
        if former is None
        else np.concatenate([former.item_ids, items["item_id"].to_numpy()])
    )
    histories = build_histories(
        interactions,
        pl.Series(ids[np.argsort(number_of)], dtype=pl.String),
        config.interactions,
        filters=config.filters,
        unknown_items=config.unknown_items,
    )
    if former is not None and max(config.min_user_events, config.min_item_events) > 1:
        raise ConfigError(
            "--min-user-events and --min-item-events count all events, not appended ones alone; ingest everything again"
        )
    if former is not None:
        histories = append_histories(former, histories, number_of, config.interactions)
    return NewData(
        items=items,
        number_of=number_of,
        row_of=row_of,
        histories=histories,
        columns={modality: name for modality, name in media_columns.items() if name in items.columns},
        features=vectors,
        promises_media=config.items is not None,
        texts=[name for name in config.texts if name in items.columns],
        former=former,
    )


def _build(config: IngestConfig, new: NewData) -> dict[str, int]:
    """Plan, do the units that are missing, put the dataset together; its counts."""
    root = config.media_root if config.media_root is not None else config.table.parent
    if not root.is_dir():
        raise DataError(f"no folder {root}; give the folder of the media files with --media-root")
    source = MediaSource(str(root))
    plan = make_plan(
        new.items, source, new.texts, new.columns, config.shard_size_mb * 1_000_000, 4 * config.num_workers
    )
    first_key = next_key(new.former)
    folder = BuildFolder(config.out, _build_key(config, plan, first_key))
    settings = UnitSettings(
        root=source.root,
        folder=folder.units,
        rules=config.rules,
        num_threads=math.ceil(config.num_workers / plan.num_units),
    )
    with folder.locked():
        with progress("reading and checking media", new.items.height, "items") as advance:
            executor = EXECUTORS[config.executor](min(config.num_workers, plan.num_units), advance)
            records = run_build(folder, plan, first_key, settings, executor)
        former = {} if new.former is None else new.former.manifest
        facts = {
            "name": config.name or (former["name"] if former else config.table.resolve().parent.name),
            "source": config.source or former.get("source"),
            "licence": config.licence or former.get("licence"),
            "build": config.build,
        }
        counts = assemble(config.out, folder, plan, records, new, facts)
        folder.remove()
    return counts


def _build_key(config: IngestConfig, plan: BuildPlan, first_key: int) -> str:
    """Of all that decides the units."""
    told = json.dumps([config.build, first_key, plan.item_ids, plan.texts, plan.fingerprint, plan.starts])
    return hashlib.sha256(told.encode(errors="surrogatepass")).hexdigest()


def _refuse_existing(config: IngestConfig) -> None:
    if not config.out.exists():
        return
    if not config.overwrite:
        raise DataError(f"{config.out} exists; give another --out, or --overwrite to replace it")
    ours = config.out.is_dir() and (config.out / MANIFEST).is_file() and SCHEMA in (config.out / MANIFEST).read_text()
    if not ours and not (config.out.is_dir() and not any(config.out.iterdir())):
        raise DataError(f"{config.out} is no dataset folder, and --overwrite replaces nothing else; give another --out")
