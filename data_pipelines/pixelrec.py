"""PixelRec: covers, titles and tags of videos, and who watched them -> a dataset folder.

    python -m data_pipelines.pixelrec --source PixelRec --subset Pixel200K --out data/pixel200k

Source. "An Image Dataset for Benchmarking Recommender Systems with Raw Pixels" (Cheng et al. 2024): `<subset>.csv`
(item_id, user_id, timestamp), `item_info.csv` or `<subset>_item_info.csv` (item_id, title, tag, description and
counts), covers in `cover/<item_id>.jpg`. Written from the paper's description; compare the columns with your release.

Licence. The authors' agreement: research only.

Mapping.
    item_id; title, tag, description   texts
    image        cover/<item_id>.jpg
    user_id, timestamp   of each comment, seconds
Left out: view_number, comment_number, thumbup_number, share_number, coin_number, favorite_number, barrage_number: they
count the events to be predicted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from data_pipelines.source import SourceConfig, ingest_tables, only_file, run, scan_csv

__all__ = ["PixelRecConfig", "convert"]

SOURCE = "PixelRec (Cheng et al. 2024)"
LICENCE = "the authors' agreement: research only"
TEXTS = ("title", "tag", "description")


@dataclass(frozen=True, kw_only=True)
class PixelRecConfig(SourceConfig):
    """Make a dataset folder of PixelRec or one of its subsets."""

    subset: str = "Pixel200K"
    """Name of the table of interactions, without its ending."""


def convert(config: PixelRecConfig) -> Path:
    """Raises: DataError if a file or column is missing, or the output folder exists."""
    info = only_file(config.source, f"{config.subset}_item_info.csv", "item_info.csv")
    items = scan_csv(info, dict.fromkeys(("item_id", *TEXTS), pl.String))
    if (config.source / "cover").is_dir():
        items = items.with_columns(("cover/" + pl.col("item_id") + ".jpg").alias("image"))
    events = scan_csv(
        config.source / f"{config.subset}.csv", {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}
    )
    return ingest_tables(
        config, items, events, name=config.subset.lower(), source=SOURCE, licence=LICENCE, text_columns=TEXTS
    )


if __name__ == "__main__":
    run(PixelRecConfig, convert, __doc__)
