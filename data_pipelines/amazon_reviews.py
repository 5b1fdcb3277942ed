"""Amazon Reviews 2023: one category's reviews and product pages, with pictures -> a dataset folder.

    python -m data_pipelines.amazon_reviews --source DOWNLOADS --category All_Beauty --images PICTURES --out data/beauty

Source. McAuley Lab, "Amazon Reviews 2023" (Hou et al. 2024), https://amazon-reviews-2023.github.io: `<category>.jsonl`
and `meta_<category>.jsonl`, each also as .jsonl.gz. Nothing is downloaded here: `--images` is a folder with the main
picture of each product, under the last part of its URL or as `<parent_asin>.jpg`.

Licence. Published for research; texts and pictures belong to their authors and sellers.

Mapping.
    item_id      parent_asin: variants of a product are one item
    title, features, description   texts; lists are joined line by line
    store, main_category, categories   attributes
    image        "large" of the picture whose variant is MAIN, else of the first one; else <parent_asin>.jpg
    user_id, timestamp, rating     of each review; milliseconds
Left out: average_rating, rating_number and bought_together (they count the events to be predicted), price (of the day
of the crawl), videos, review texts and helpful votes. Every review counts as an event unless `--min-rating` is given.
Times are those of writing a review, days to months after the purchase.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from data_pipelines.source import SourceConfig, ingest_tables, only_file, run, scan_jsonl, table
from mmrec.errors import DataError

__all__ = ["AmazonReviewsConfig", "convert"]

SOURCE = "Amazon Reviews 2023, McAuley Lab (Hou et al. 2024)"
HOME = "https://amazon-reviews-2023.github.io"
LICENCE = "research use; texts and pictures belong to their authors and sellers"
PICTURE = pl.Struct({"large": pl.String, "variant": pl.String})


@dataclass(frozen=True, kw_only=True)
class AmazonReviewsConfig(SourceConfig):
    """Make a dataset folder of one category of Amazon Reviews 2023."""

    category: str
    """As in the files' names, such as All_Beauty."""
    images: Path | None = None
    """Folder of the main pictures that were downloaded; without it there are none."""


def convert(config: AmazonReviewsConfig) -> Path:
    """Raises: DataError if a file is missing or cannot be read, or the output folder exists."""
    if config.images is not None and not config.images.is_dir():
        raise DataError(f"no folder {config.images}; --images is the folder of the downloaded pictures")
    files = [
        only_file(config.source, f"{name}.jsonl", f"{name}.jsonl.gz")
        for name in (f"meta_{config.category}", config.category)
    ]
    pages = scan_jsonl(
        files[0],
        {
            "parent_asin": pl.String,
            "title": pl.String,
            "features": pl.List(pl.String),
            "description": pl.List(pl.String),
            "store": pl.String,
            "main_category": pl.String,
            "categories": pl.List(pl.String),
            "images": pl.List(PICTURE),
        },
    )
    reviews = scan_jsonl(
        files[1],
        {"user_id": pl.String, "parent_asin": pl.String, "timestamp": pl.Int64, "rating": pl.Float64},
    )
    items = pages.unique("parent_asin", keep="first", maintain_order=True).select(
        pl.col("parent_asin").alias("item_id"),
        "title",
        pl.col("features", "description").list.join("\n"),
        "store",
        "main_category",
        pl.col("categories").list.join(" > "),
        *([_picture(config.images)] if config.images is not None else []),
    )
    return ingest_tables(
        config,
        table(items, files[0]),
        table(reviews.rename({"parent_asin": "item_id"}), files[1]),
        name=f"amazon_{config.category.lower()}",
        source=SOURCE,
        home=HOME,
        licence=LICENCE,
        text_columns=("title", "features", "description"),
        media_root=config.images,
    )


def _picture(folder: Path) -> pl.Expr:
    """The file of the main picture: as it is called in its URL, else by the product's own name."""
    named = {path.name for path in folder.iterdir()}
    pictures = pl.col("images")
    main = pictures.list.eval(pl.element().filter(pl.element().struct.field("variant") == "MAIN")).list.first()
    url = pl.coalesce(main.struct.field("large"), pictures.list.first().struct.field("large"))
    in_url, own = url.str.split("/").list.last(), pl.col("parent_asin") + ".jpg"
    known = pl.Series(sorted(named), dtype=pl.String).implode()
    by_own_name = own.is_in(known) & ~in_url.is_in(known).fill_null(False)
    return pl.when(by_own_name).then(own).otherwise(in_url).alias("image")


if __name__ == "__main__":
    run(AmazonReviewsConfig, convert, __doc__)
