"""MicroLens: micro-videos with titles, covers, sound and the clips themselves -> a dataset folder.

    python -m data_pipelines.microlens --source MicroLens-100k --out data/microlens

Source. "A Content-Driven Micro-Video Recommendation Dataset at Scale" (Ni et al. 2023),
https://github.com/westlake-repl/MicroLens: `*_pairs.csv` (user, item, timestamp), or `*_pairs.tsv` (user, a tab, videos
in order with spaces between); `*_titles.csv` (item, title), or `*_title_en.csv`, which has no header and no quotes: the
title is what follows the first comma; folders `*_covers*`, `*_audios*`, `*_videos*` with one file a video, named by its
id. Names of files differ between the releases; the first pattern that one file fits is taken.

Licence. The authors' agreement: research only, not to be given on.

Mapping.
    item_id, title   of the titles; the covers, sounds and clips that were downloaded are image, audio, video
    user_id, timestamp   of each pair, milliseconds; a table of pairs without times has positions
Left out: likes and views of `*_likes_and_views.txt`, which count the events to be predicted, and comments.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from data_pipelines.source import SourceConfig, ingest_tables, only_file, run, scan_csv, table
from mmrec.errors import DataError

__all__ = ["MicroLensConfig", "convert"]

SOURCE = "MicroLens (Ni et al. 2023)"
HOME = "https://github.com/westlake-repl/MicroLens"
LICENCE = "the authors' agreement: research only, not to be given on"
FOLDERS = {"image": "*_covers*", "audio": "*_audios*", "video": "*_videos*"}


@dataclass(frozen=True, kw_only=True)
class MicroLensConfig(SourceConfig):
    """Make a dataset folder of MicroLens-50K, 100K or 1M."""


def convert(config: MicroLensConfig) -> Path:
    """Raises: DataError if a file or column is missing, or the output folder exists."""
    path = only_file(config.source, "*_title_en.csv", "*_titles.csv")
    titles = _titles(path)
    for modality, pattern in FOLDERS.items():
        files = _files(config.source, modality, pattern)
        if files is not None:
            titles = titles.join(files, on="item_id", how="left", maintain_order="left")
    log = only_file(config.source, "*_pairs.csv", "*_pairs.tsv")
    return ingest_tables(
        config,
        table(titles, path),
        table(_pairs(log), log),
        name="microlens",
        source=SOURCE,
        home=HOME,
        licence=LICENCE,
        text_columns=("title",),
    )


def _titles(path: Path) -> pl.LazyFrame:
    with path.open(encoding="utf-8-sig") as file:
        has_header = file.readline().strip() == "item,title"
    if has_header:
        return scan_csv(path, {"item": pl.String, "title": pl.String}).rename({"item": "item_id"})
    lines = pl.scan_csv(
        path,
        has_header=False,
        separator="\x1f",
        quote_char=None,
        schema={"line": pl.String},
        truncate_ragged_lines=True,
    )
    parts = pl.col("line").str.strip_prefix("\ufeff").str.splitn(",", 2)
    return lines.select(parts.struct.field("field_0").alias("item_id"), parts.struct.field("field_1").alias("title"))


def _files(source: Path, modality: str, pattern: str) -> pl.LazyFrame | None:
    """The files of a folder by the ids in their names; None where the folder was not downloaded."""
    folders = [path for path in sorted(source.glob(pattern)) if path.is_dir()]
    if not folders:
        return None
    if len(folders) > 1:
        raise DataError(f"{source} has several {pattern}; leave the one that is meant")
    files = sorted(path for path in folders[0].iterdir() if path.is_file())
    paths = {"item_id": [path.stem for path in files], modality: [str(path.relative_to(source)) for path in files]}
    return pl.LazyFrame(paths, schema={"item_id": pl.String, modality: pl.String}).unique("item_id", keep="first")


def _pairs(path: Path) -> pl.LazyFrame:
    if path.suffix == ".csv":
        pairs = scan_csv(path, {"user": pl.String, "item": pl.String, "timestamp": pl.Int64})
        return pairs.rename({"user": "user_id", "item": "item_id"})
    rows = scan_csv(path, {"user_id": pl.String, "item_id": pl.String}, separator="\t", header=False)
    items = pl.col("item_id").str.split(" ")
    events = rows.with_columns(items, pl.int_ranges(items.list.len()).alias("position"))
    return events.explode("item_id", "position")


if __name__ == "__main__":
    run(MicroLensConfig, convert, __doc__)
