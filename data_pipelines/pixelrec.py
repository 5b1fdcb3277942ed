"""PixelRec: covers, titles and tags of videos, and who watched them -> a dataset folder.

    python -m data_pipelines.pixelrec --source PixelRec --subset Pixel200K --out data/pixel200k

Source. "An Image Dataset for Benchmarking Recommender Systems with Raw Pixels" (Cheng et al. 2024),
https://github.com/westlake-repl/PixelRec, in any of the forms in which it is shipped: the folders `Interaction/` and
`Item Information/`, each with `<subset>.csv`; or `dataset/<subset>.csv` (or `<subset>.csv`) and `item_info.csv`; or, of
the sample of 50,000 users, `interaction.csv` and `item_info.csv`. Interactions have item_id, user_id, timestamp; items
item_id, title, tag, description and counts. Covers are `<item_id>.jpg` in `cover/`, `covers/` or `images/`.

Licence. The authors' agreement: research only, not to be given on.

Mapping.
    item_id; title, tag, description   texts, in English
    image        cover/<item_id>.jpg
    user_id, timestamp   of each comment, seconds
Left out: view_number, comment_number, thumbup_number, share_number, coin_number, favorite_number, barrage_number: they
count the events to be predicted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from data_pipelines.source import SourceConfig, ingest_tables, only_file, run, scan_csv, table

__all__ = ["PixelRecConfig", "convert"]

SOURCE = "PixelRec (Cheng et al. 2024)"
HOME = "https://github.com/westlake-repl/PixelRec"
LICENCE = "the authors' agreement: research only, not to be given on"
TEXTS = ("title", "tag", "description")
COVERS = ("cover", "covers", "images")


@dataclass(frozen=True, kw_only=True)
class PixelRecConfig(SourceConfig):
    """Make a dataset folder of PixelRec or one of its subsets."""

    subset: str = "Pixel200K"
    """Name of the table of interactions, without its ending."""


def convert(config: PixelRecConfig) -> Path:
    """Raises: DataError if a file or column is missing, or the output folder exists."""
    name = f"{config.subset}.csv"
    log = only_file(config.source, f"[Ii]nteraction*/{name}", f"dataset/{name}", name, "interaction.csv")
    info = only_file(config.source, f"[Ii]tem*/{name}", "item_info.csv", f"information/{name}")
    items = scan_csv(info, dict.fromkeys(("item_id", *TEXTS), pl.String))
    covers = next((folder for folder in COVERS if (config.source / folder).is_dir()), None)
    if covers is not None:
        items = items.with_columns((f"{covers}/" + pl.col("item_id") + ".jpg").alias("image"))
    events = scan_csv(log, {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64})
    return ingest_tables(
        config,
        table(items, info),
        table(events, log),
        name=config.subset.lower(),
        source=SOURCE,
        home=HOME,
        licence=LICENCE,
        text_columns=TEXTS,
    )


if __name__ == "__main__":
    run(PixelRecConfig, convert, __doc__)
