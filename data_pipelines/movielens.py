"""MovieLens with posters, plots, soundtracks and trailers -> a dataset folder.

    python -m data_pipelines.movielens --source ../shared/data/movielens_mm --out data/movielens_mm

Measured 2026-11-26, 2-core CPU that other work shared (load 5): 57 s, 13,049 items, 206,584 events, 94 MB; 3 rows in
errors.parquet (two clips begin before their first keyframe, one quote has a bad packet; all three are used as far as
they decode).

Source. MovieLens, https://grouplens.org/datasets/movielens, with media beside it: a folder with `items.parquet`,
`interactions.parquet` and `media/`, as its README describes: ratings of users 1 to 2149 of GroupLens ml-latest (July
2023); posters of films; plots from TMDB, else abstracts from DBpedia; quotes and trailers of a few films. Most items
lack sound and pictures in motion, and 6,034 have no more than title and genres.

Licence. Research use only. MovieLens: GroupLens terms (no commercial use, no endorsement, cite Harper and Konstan
2015). Posters, quotes and clips belong to their studios; TMDB and DBpedia (CC BY-SA) terms apply to the plots. Neither
the source nor a dataset made of it may be given on.

Mapping.
    title        title, as given: it ends in the year, "Toy Story (1995)"
    genres       genres, "Adventure, Animation"; "(no genres listed)" is missing
    description  description
    user_tags    user_tags, "pixar, toys". Users wrote them as free text, some of them after the events that are
                 predicted; `--no-user-tags` leaves them out, and a study of cold items should
    image, audio, video   image_path, audio_path, video_path
    year, imdb_id         kept as attributes
Left out: n_ratings (it counts the events to be predicted), abstract (where there is no overview it is the description
already), trailer_caption, and the columns on where each file came from.
The four text columns are separate columns of the item table and the lines of its text, in this order.
One event in six shares its second with the one before; such ties stay in the order of the file, which is by item_id.
Every rating counts as an event, whatever its height, as in the sequential literature; `--min-rating 4` keeps likes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from data_pipelines.source import SourceConfig, ingest_tables, run, scan_parquet, table

__all__ = ["MovieLensConfig", "convert"]

SOURCE = "GroupLens ml-latest (July 2023), users 1-2149; posters, plots, quotes and trailers as in the source's README"
HOME = "https://grouplens.org/datasets/movielens"
LICENCE = "research use only: GroupLens terms; media belong to their studios; plots TMDB and DBpedia (CC BY-SA)"
NO_GENRES = "(no genres listed)"
PATHS = {"image_path": "image", "audio_path": "audio", "video_path": "video"}


@dataclass(frozen=True, kw_only=True)
class MovieLensConfig(SourceConfig):
    """Make a dataset folder of the MovieLens pack with media."""

    user_tags: bool = True
    """Use the users' own tags as text."""


def convert(config: MovieLensConfig) -> Path:
    """Raises: DataError if the source lacks a table or a column, or the output folder exists."""
    tags = ("user_tags",) if config.user_tags else ()
    texts = ("title", "genres", "description", *tags)
    films, ratings = (config.source / name for name in ("items.parquet", "interactions.parquet"))
    genres = pl.when(pl.col("genres") != NO_GENRES).then(pl.col("genres"))
    lists = [column.str.replace_all("|", ", ", literal=True) for column in (genres, *map(pl.col, tags))]
    items = scan_parquet(films, "item_id", *texts, *PATHS, "year", "imdb_id").rename(PATHS)
    items = items.with_columns(pl.col("item_id").cast(pl.String), *lists)
    return ingest_tables(
        config,
        table(items, films),
        table(scan_parquet(ratings, "user_id", "item_id", "timestamp", "rating"), ratings),
        name="movielens_mm",
        source=SOURCE,
        home=HOME,
        licence=LICENCE,
        text_columns=texts,
    )


if __name__ == "__main__":
    run(MovieLensConfig, convert, __doc__)
