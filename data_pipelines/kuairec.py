"""KuaiRec: watched videos with captions and tags -> a dataset folder.

    python -m data_pipelines.kuairec --source "KuaiRec 2.0/data" --out data/kuairec

Source. "KuaiRec: A Fully-Observed Dataset" (Gao et al. 2022), https://kuairec.com: the folder `data/` with
`big_matrix.csv`, `small_matrix.csv` and `kuairec_caption_category.csv`.

Licence. CC BY-SA 4.0.

Mapping.
    item_id      video_id
    caption, manual_cover_text, topic_tag   texts; "UNKNOWN" and an empty list are missing
    first_level_category_name and so on     attributes
                 captions of several lines are not quoted: they end with their first line, whose video stays
    user_id, timestamp   of each view, in seconds with fractions
A view counts as an event from `--min-watch-ratio` on (time watched / length of the video; 2 is watched twice); the
authors call 2 and more a like. `--matrix small` takes the 1,411 users of whom nearly every video's view is known: they
were shown the videos for the study, so that what follows what tells little.
Left out: play_duration and the daily counts of `item_daily_features.csv`, which count the events to be predicted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from data_pipelines.source import SourceConfig, ingest_tables, run, scan_csv, table

__all__ = ["KuaiRecConfig", "convert"]

SOURCE = "KuaiRec 2.0 (Gao et al. 2022)"
HOME = "https://kuairec.com"
LICENCE = "CC BY-SA 4.0"
TEXTS = ("caption", "manual_cover_text", "topic_tag")
ATTRIBUTES = ("first_level_category_name", "second_level_category_name", "third_level_category_name")
NOTHING = ("UNKNOWN", "[]")


@dataclass(frozen=True, kw_only=True)
class KuaiRecConfig(SourceConfig):
    """Make a dataset folder of KuaiRec."""

    matrix: Literal["big", "small"] = "big"
    """Which of the two tables of views."""
    min_watch_ratio: float = 1.0
    """Least share of a video that was watched."""


def convert(config: KuaiRecConfig) -> Path:
    """Raises: DataError if a file or column is missing, or the output folder exists."""
    columns = ("video_id", *TEXTS, *ATTRIBUTES)
    files = [config.source / name for name in ("kuairec_caption_category.csv", f"{config.matrix}_matrix.csv")]
    captions = scan_csv(files[0], dict.fromkeys(columns, pl.String), ragged=True)
    captions = captions.filter(pl.col("video_id").str.contains(r"^[0-9]+$"))
    known = [pl.when(~pl.col(name).is_in(NOTHING)).then(pl.col(name)) for name in columns[1:]]
    views = scan_csv(
        files[1],
        {"user_id": pl.String, "video_id": pl.String, "timestamp": pl.Float64, "watch_ratio": pl.Float64},
    )
    watched = views.filter(pl.col("watch_ratio") >= config.min_watch_ratio)
    return ingest_tables(
        config,
        table(captions.select(pl.col("video_id").alias("item_id"), *known), files[0]),
        table(watched.select("user_id", pl.col("video_id").alias("item_id"), "timestamp"), files[1]),
        name=f"kuairec_{config.matrix}",
        source=SOURCE,
        home=HOME,
        licence=LICENCE,
        text_columns=TEXTS,
    )


if __name__ == "__main__":
    run(KuaiRecConfig, convert, __doc__)
