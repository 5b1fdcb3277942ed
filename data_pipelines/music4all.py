"""Music4All: listening histories with artists, genres, tags and sound clips -> a dataset folder.

    python -m data_pipelines.music4all --source music4all --out data/music4all

Source. "Music4All: A New Music Database and Its Applications" (Santana et al. 2020), on request at
https://sites.google.com/view/contact4music4all: `id_information.csv` (id, artist, song, album_name), `id_genres.csv`,
`id_tags.csv`, `id_lang.csv`, `listening_history.csv` (user, song, timestamp), all tab-separated with headers, and
`audios/<id>.mp3`, 30 seconds each.

Licence. On request, research only; the sounds belong to their labels.

Mapping.
    item_id      id
    song, artist, album_name, genres, tags   texts, line by line; lang   attribute
    audio        audios/<id>.mp3
    user_id, timestamp   of each play, "2019-01-23 15:07": a minute. Hearing a song again is another event.
Left out: popularity in `id_metadata.csv`, which counts the events to be predicted, and Spotify's audio features.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from data_pipelines.source import SourceConfig, ingest_tables, run, scan_csv, table

__all__ = ["Music4AllConfig", "convert"]

SOURCE = "Music4All (Santana et al. 2020)"
HOME = "https://sites.google.com/view/contact4music4all"
LICENCE = "on request, research only; the sounds belong to their labels"
TEXTS = ("song", "artist", "album_name", "genres", "tags")


@dataclass(frozen=True, kw_only=True)
class Music4AllConfig(SourceConfig):
    """Make a dataset folder of Music4All."""


def convert(config: Music4AllConfig) -> Path:
    """Raises: DataError if a file or column is missing, or the output folder exists."""
    files = [config.source / name for name in ("id_information.csv", "listening_history.csv")]
    items = _scan(files[0], "id", "artist", "song", "album_name")
    for name in ("genres", "tags", "lang"):
        items = items.join(
            _scan(config.source / f"id_{name}.csv", "id", name), on="id", how="left", maintain_order="left"
        )
    columns = [pl.col("id").alias("item_id"), *TEXTS, "lang"]
    if (config.source / "audios").is_dir():
        columns.append(("audios/" + pl.col("id") + ".mp3").alias("audio"))
    plays = _scan(files[1], "user", "song", "timestamp")
    at = pl.col("timestamp").str.to_datetime("%Y-%m-%d %H:%M", time_unit="us")
    return ingest_tables(
        config,
        table(items.select(columns), files[0]),
        table(plays.select(pl.col("user").alias("user_id"), pl.col("song").alias("item_id"), at), files[1]),
        name="music4all",
        source=SOURCE,
        home=HOME,
        licence=LICENCE,
        text_columns=TEXTS,
    )


def _scan(path: Path, *columns: str) -> pl.LazyFrame:
    return scan_csv(path, dict.fromkeys(columns, pl.String), separator="\t")


if __name__ == "__main__":
    run(Music4AllConfig, convert, __doc__)
