"""From tables and media to a dataset folder, whoever brings them: read, plan, do the units, put together, publish."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from mmrec.data.append import append_histories, check_new_items, join_features
from mmrec.data.assemble import NewData, assemble, next_key
from mmrec.data.build import BuildFolder, run_build
from mmrec.data.build_plan import make_plan
from mmrec.data.build_settings import BuildConfig, BuildSettings
from mmrec.data.dataset import Dataset
from mmrec.data.error_rows import error_rows
from mmrec.data.executors import EXECUTORS
from mmrec.data.feature_sets import load_feature_sets
from mmrec.data.interactions import build_histories
from mmrec.data.manifest import MANIFEST
from mmrec.data.progress import progress
from mmrec.data.tables import Table, read_interactions, read_items
from mmrec.data.units import UnitSettings, package_versions
from mmrec.errors import ConfigError, DataError
from mmrec.media.source import MediaSource

__all__ = ["Sources", "build_dataset", "unit_ground"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What a dataset is made of.

    Attributes:
        interactions: user_id, item_id and what else ``read_interactions`` knows.
        items: the item table; without one the items are those of the interactions, known by their ids alone.
        media_root: folder that media paths start from.
        features: name -> file of vectors, row i for row i of the item table.
        former: a version to which all this is added.
        name, source, licence: for the manifest; None: those of the former version.
    """

    interactions: Table
    items: Table | None
    media_root: Path
    features: dict[str, Path] = field(default_factory=dict)
    former: Dataset | None = None
    name: str | None
    source: str | None
    licence: str | None


def build_dataset(config: BuildConfig, settings: BuildSettings, sources: Sources) -> Path:
    """Build the dataset folder ``config.out`` and return it. The same input gives the same bytes.

    Media that cannot be used, and events that are left out, become rows of ``errors.parquet``. The folder appears
    under its name only when it is complete; a build that was killed goes on where it was.

    Raises:
        DataError: if a table cannot be used, or the folder exists.
        ConfigError: if a setting is out of range.
    """
    try:
        folder = BuildFolder(config.out)
        is_published = folder.seems_published()
        if not is_published:
            folder.refuse_existing(overwrite=config.overwrite)
        new = _read_tables(settings, sources)
        counts = _build(config, settings, sources, new, folder, is_published)
    except OSError as error:  # no space, no permission
        raise DataError(f"cannot write {config.out}: {error}; choose another --out or make room") from error
    logger.info("%s: %d items, %d users, %d errors", config.out, counts["items"], counts["users"], counts["errors"])
    return config.out


def _read_tables(settings: BuildSettings, sources: Sources) -> NewData:
    """The user's tables, judged; with a former version, what they add to it."""
    former = sources.former
    events = read_interactions(sources.interactions)
    errors = error_rows([], "", modality="", error="")
    if sources.items is not None:
        absent = ("text", "image", "audio", "video")
        items, errors = read_items(sources.items, settings.text_columns, settings.media_columns, absent)
    elif sources.features:
        raise ConfigError("--features need --items: row i of the vectors belongs to row i of the item table")
    elif former is None:
        items = events.select(pl.col("item_id").drop_nulls().unique().cast(pl.String).sort())
    else:
        items = pl.DataFrame(schema={"item_id": pl.String})
    vectors = load_feature_sets(sources.features, items.height)
    # Index order leaks the target in public files (popular or early items first): items are numbered at random.
    generator = np.random.Generator(np.random.Philox(settings.seed))
    row_of = generator.permutation(items.height)
    items = items[row_of]
    number_of = np.arange(items.height)
    ids = items["item_id"]
    if former is not None:
        check_new_items(former, items)
        vectors = join_features(former, vectors)
        number_of = generator.permutation(former.num_items + items.height)
        row_of = np.concatenate([np.arange(former.num_items), former.num_items + row_of])[np.argsort(number_of)]
        ids = pl.concat([former.attributes["item_id"], ids]).gather(np.argsort(number_of))
    held = [events]  # the only reference, which is given away: a log of a hundred million events is there once
    del events
    histories = build_histories(
        held.pop(),
        ids,
        sources.interactions.name,
        filters=settings.filters,
        unknown_items=settings.unknown_items,
    )
    if former is not None:
        histories = append_histories(former, histories, number_of, sources.interactions.name)
    return NewData(
        items=items,
        number_of=number_of,
        row_of=row_of,
        histories=histories,
        columns={modality: name for modality, name in settings.media_columns.items() if name in items.columns},
        features=vectors,
        errors=errors,
        promises_media=sources.items is not None,
        texts=[name for name in settings.text_columns if name in items.columns],
        former=former,
    )


def _build(
    config: BuildConfig,
    settings: BuildSettings,
    sources: Sources,
    new: NewData,
    folder: BuildFolder,
    is_published: bool,
) -> dict[str, int]:
    """Plan, do the units that are missing, put the dataset together; its counts.

    Args:
        is_published: the dataset may have its name already, from a process that was killed after that.
    """
    if not sources.media_root.is_dir():
        raise DataError(f"no folder {sources.media_root}; give the folder of the media files with --media-root")
    source = MediaSource(str(sources.media_root))
    units = UnitSettings(
        root=source.root,
        folder=folder.units.absolute(),
        rules=settings.rules,
        shard_bytes=settings.shard_size_mb * 1_000_000,
        timeout_s=config.medium_timeout_s,
        versions=package_versions(),
    )
    plan = make_plan(
        new.items,
        source,
        new.texts,
        new.columns,
        former=None if new.former is None else new.former.attributes,
        shard_bytes=units.shard_bytes,
        first_key=next_key(new.former),
        ground=unit_ground(units),
        num_threads=4 * (config.num_workers or os.cpu_count() or 1),
    )
    with folder.locked():
        if not is_published:
            folder.refuse_existing(overwrite=config.overwrite)
        with progress("reading and checking media", new.items.height, "items") as advance:
            records = run_build(folder, plan, units, EXECUTORS[config.executor](config.num_workers, advance))
        former = {} if new.former is None else new.former.manifest
        facts = {
            "name": sources.name or former["name"],
            "source": sources.source or former.get("source"),
            "licence": sources.licence or former.get("licence"),
            "build": {**settings.told(), "features": list(new.features)},
        }
        counts = assemble(folder, plan, records, new, facts)
        if is_published and (folder.dataset / MANIFEST).read_bytes() == folder.standing_manifest():
            folder.remove()
        else:
            folder.refuse_existing(overwrite=config.overwrite)
            folder.publish()
    return counts


def unit_ground(units: UnitSettings) -> str:
    """Of the settings and versions that decide the bytes of units."""
    told = [units.versions, asdict(units.rules), units.shard_bytes, units.timeout_s]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
