"""``mmrec ingest``: from one's own tables, media files and vectors to a dataset folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from mmrec.data.feature_sets import parse_feature_options, write_feature_set
from mmrec.data.interactions import Histories, build_histories, write_histories
from mmrec.data.item_media import ItemMedia, load_items
from mmrec.data.manifest import MANIFEST, MEDIA_FIELDS, MEDIA_MODALITIES, SCHEMA, Writer
from mmrec.data.shards import Location, ShardWriter
from mmrec.data.tables import read_interactions, read_items
from mmrec.errors import ConfigError, DataError

__all__ = ["IngestConfig", "ingest"]

logger = logging.getLogger(__name__)

_ERROR_COLUMNS = ("item_id", "modality", "stage", "error", "message")


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
    unknown_items: Literal["error", "drop"] = "error"
    """What to do with events whose item the item table lacks; drop records each in errors.parquet."""
    name: str | None = None
    """Name of the dataset; the name of the tables' folder if not given."""
    source: str | None = None
    """Where the data comes from, for the manifest."""
    licence: str | None = None
    """Under which terms the data may be used, for the manifest."""
    seed: int = 0
    """Seed of the permutation that numbers the items."""
    shard_size_mb: int = 256
    """Largest size of one media shard, in megabytes."""
    num_workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Threads that read and check media files."""
    overwrite: bool = False
    """Replace the dataset folder that exists."""

    def __post_init__(self) -> None:
        for name, least in (("shard_size_mb", 1), ("num_workers", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least {least}")

    @property
    def table(self) -> Path:
        """The table whose folder names the dataset and holds its media."""
        return self.items or self.interactions

    @property
    def texts(self) -> tuple[str, ...]:
        """``text_columns`` one by one, whether they were given with commas or spaces between them."""
        return tuple(name for entry in self.text_columns for name in entry.split(",") if name)


def ingest(config: IngestConfig) -> Path:
    """Build the dataset folder ``config.out`` and return it. The same input gives the same bytes.

    Media that cannot be used, and events that are left out, become rows of ``errors.parquet``. The folder appears
    under its name only when it is complete.

    Raises:
        DataError: if a table cannot be used, or the folder exists.
        ConfigError: if a setting is out of range.
    """
    _refuse_existing(config)
    features = parse_feature_options(config.features)
    media_columns = {"image": config.image_column, "audio": config.audio_column, "video": config.video_column}
    interactions = read_interactions(config.interactions)
    if config.items is None:
        if features:
            raise ConfigError("--features need --items: row i of the vectors belongs to row i of the item table")
        items = interactions.select("item_id").unique().sort("item_id")
    else:
        items = read_items(config.items, config.texts, media_columns, ("text", "image", "audio", "video"))
    # Index order leaks the target in public files (popular or early items first): items are numbered at random.
    row_of = np.random.Generator(np.random.Philox(config.seed)).permutation(items.height)
    items = items[row_of]
    histories = build_histories(
        interactions,
        items["item_id"],
        config.interactions,
        min_rating=config.min_rating,
        unknown_items=config.unknown_items,
    )
    with _writer(config) as writer:
        errors: list[dict[str, str]] = []
        table, has_any = _write_media(writer, config, items, media_columns, errors)
        for name, path in features.items():
            present, faults = write_feature_set(writer, name, path, row_of, items["item_id"].to_list())
            has_any |= present
            errors.extend(faults)
        if config.items is not None:
            errors.extend(_no_modality(items["item_id"], has_any))
        _write_table(writer, "items.parquet", table)
        num_users = write_histories(histories, writer.path("sequences/sequences.arrow"))
        writer.done("sequences/sequences.arrow", num_users)
        errors.extend(histories.errors)
        _write_table(writer, "errors.parquet", pl.DataFrame(errors, schema=dict.fromkeys(_ERROR_COLUMNS, pl.String)))
        manifest = _manifest(config, table, histories, features, num_users, errors)
        writer.commit(manifest)
    counts = manifest["counts"]
    logger.info("%s: %d items, %d users, %d errors", config.out, counts["items"], counts["users"], counts["errors"])
    return config.out


def _refuse_existing(config: IngestConfig) -> None:
    if not config.out.exists():
        return
    if not config.overwrite:
        raise DataError(f"{config.out} exists; give another --out, or --overwrite to replace it")
    ours = config.out.is_dir() and (config.out / MANIFEST).is_file() and SCHEMA in (config.out / MANIFEST).read_text()
    if not ours and not (config.out.is_dir() and not any(config.out.iterdir())):
        raise DataError(f"{config.out} is no dataset folder, and --overwrite replaces nothing else; give another --out")


@contextlib.contextmanager
def _writer(config: IngestConfig) -> Iterator[Writer]:
    """A writer whose temporary folder goes away if anything goes wrong."""
    writer = Writer(config.out)
    try:
        writer.root.mkdir(parents=True)
        yield writer
    except OSError as error:  # no space, no permission
        raise DataError(f"cannot write {config.out}: {error}; choose another --out or make room") from error
    finally:
        shutil.rmtree(writer.root, ignore_errors=True)


def _write_media(
    writer: Writer,
    config: IngestConfig,
    items: pl.DataFrame,
    media_columns: dict[str, str],
    errors: list[dict[str, str]],
) -> tuple[pl.DataFrame, np.ndarray]:
    """Store the media of all items in order; return the item table with their places and facts."""
    root = config.media_root if config.media_root is not None else config.table.parent
    if not root.is_dir():
        raise DataError(f"no folder {root}; give the folder of the media files with --media-root")
    columns = {modality: name for modality, name in media_columns.items() if name in items.columns}
    texts = [name for name in config.texts if name in items.columns]
    shards = ShardWriter(writer, config.shard_size_mb * 1_000_000)
    facts = {modality: _empty_facts(modality) for modality in MEDIA_MODALITIES}
    has_any = np.zeros(items.height, dtype=bool)
    for item_idx, item in enumerate(load_items(items, root, texts, columns, config.num_workers)):
        stored = {modality: (info.ext, data) for modality, (info, data) in item.media.items()}
        locations = shards.add(item_idx, {name: stored[name] for name in MEDIA_MODALITIES if name in stored})
        has_any[item_idx] = bool(locations)
        failed = {fault["modality"] for fault in item.faults}
        for modality in MEDIA_MODALITIES:
            state = "missing" if modality not in failed else "error"
            _append_facts(facts[modality], modality, item, locations.get(modality), state)
        errors.extend({"item_id": items["item_id"][item_idx], **fault} for fault in item.faults)
    shards.close()
    kept = items.rename({name: f"{modality}.path" for modality, name in columns.items()})
    return _item_table(kept, facts), has_any


_PLACE = {
    "shard": pl.Int32,
    "offset": pl.Int64,
    "size": pl.Int64,
    "xxh3": pl.UInt64,
    "ext": pl.String,
    "status": pl.String,
}
_FACTS = {
    "width": pl.Int32,
    "height": pl.Int32,
    "sample_rate": pl.Int32,
    "num_frames": pl.Int32,
    "fps": pl.Float32,
    "duration_s": pl.Float32,
}


def _empty_facts(modality: str) -> dict[str, list]:
    return {name: [] for name in (*_PLACE, *MEDIA_FIELDS[modality])}


def _append_facts(
    facts: dict[str, list], modality: str, item: ItemMedia, location: Location | None, state: str
) -> None:
    info = item.media[modality][0] if location is not None else None
    for name, column in facts.items():
        if name == "status":
            column.append(info.status if info is not None else state)
        elif name in ("shard", "offset", "size", "xxh3"):
            column.append(None if location is None else getattr(location, name))
        else:
            column.append(None if info is None else getattr(info, name))


def _item_table(items: pl.DataFrame, facts: dict[str, dict[str, list]]) -> pl.DataFrame:
    columns = [
        pl.Series(f"{modality}.{name}", values, dtype=(_PLACE | _FACTS)[name])
        for modality, group in facts.items()
        for name, values in group.items()
    ]
    index = pl.Series("item_idx", np.arange(items.height, dtype=np.int32))
    first = items.select(index, "item_id")
    return first.hstack(items.drop("item_id").get_columns()).hstack(columns)


def _no_modality(item_ids: pl.Series, has_any: np.ndarray) -> list[dict[str, str]]:
    fault = {
        "modality": "all",
        "stage": "ingest",
        "error": "NoModality",
        "message": "the item has no usable text, image, audio, video or vector; only its id tells it apart",
    }
    return [{"item_id": item_ids[int(item_idx)], **fault} for item_idx in np.flatnonzero(~has_any)]


def _write_table(writer: Writer, name: str, table: pl.DataFrame) -> None:
    table.write_parquet(writer.path(name), compression="zstd", statistics=True)
    writer.done(name, table.height)


def _manifest(
    config: IngestConfig,
    table: pl.DataFrame,
    histories: Histories,
    features: dict[str, Path],
    num_users: int,
    errors: list[dict[str, str]],
) -> dict[str, Any]:
    """Everything but the files; paths and times stay out, so that equal input gives equal bytes."""
    media = {
        modality: dict(sorted(table[f"{modality}.status"].value_counts().iter_rows())) for modality in MEDIA_MODALITIES
    }
    build = {
        "text_columns": list(config.texts),
        "media_columns": [config.image_column, config.audio_column, config.video_column],
        "features": list(features),
        "min_rating": config.min_rating,
        "unknown_items": config.unknown_items,
        "seed": config.seed,
        "shard_size_mb": config.shard_size_mb,
    }
    return {
        "name": config.name or config.table.resolve().parent.name,
        "source": config.source,
        "licence": config.licence,
        "counts": {
            "items": table.height,
            "users": num_users,
            "events": histories.events.height,
            "errors": len(errors),
            "media": media,
        },
        "text_columns": [name for name in config.texts if name in table.columns],
        "features": list(features),
        "interactions": histories.facts,
        "build": {**build, "hash": hashlib.sha256(json.dumps(build, sort_keys=True).encode()).hexdigest()},
    }
