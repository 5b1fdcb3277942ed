"""MIND, Microsoft News: clicks and articles -> a dataset folder.

    python -m data_pipelines.mind --source MINDsmall --out data/mind

Source. "MIND: A Large-scale Dataset for News Recommendation" (Wu et al. 2020), https://msnews.github.io: `train/` and
`dev/` (or `MINDsmall_train/` and so on), each with `behaviors.tsv` and `news.tsv`, tab-separated without headers.

Licence. Microsoft Research License Terms: research only.

Mapping.
    item_id      news id
    title, abstract   texts; category, subcategory   attributes
    user_id      user id
    timestamp    time of the impression, "11/15/2019 8:55:22 AM", for the articles clicked in it (ends in -1)
Each impression also lists what the user had clicked before, in order and without times. It is the same list in all
impressions of a user, and ends before the first one: the events of the first list found get the seconds before the
user's first impression, one second apart, so that their order is kept and nothing is said of when; `--no-history`
leaves them out.
Left out: articles shown and not clicked, URLs, entities. Several clicks of one impression share its second.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from data_pipelines.source import SourceConfig, ingest_tables, only_file, run, scan_csv, table

__all__ = ["MINDConfig", "convert"]

SOURCE = "MIND, Microsoft News Dataset (Wu et al. 2020)"
HOME = "https://msnews.github.io"
LICENCE = "Microsoft Research License Terms: research only"
BEHAVIOURS = ("impression", "user_id", "time", "history", "shown")
NEWS = ("item_id", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities")


@dataclass(frozen=True, kw_only=True)
class MINDConfig(SourceConfig):
    """Make a dataset folder of MIND small or large."""

    history: bool = True
    """Use the clicks before the first impression, of which the order is known and the time is not."""


def convert(config: MINDConfig) -> Path:
    """Raises: DataError if a file is missing or cannot be read, or the output folder exists."""
    parts = [only_file(config.source, f"*{part}") for part in ("train", "dev")]
    logs, pages = ([part / name for part in parts] for name in ("behaviors.tsv", "news.tsv"))
    behaviours = pl.concat([_scan(path, BEHAVIOURS) for path in logs])
    news = pl.concat([_scan(path, NEWS) for path in pages])
    items = news.unique("item_id", keep="first", maintain_order=True)
    behaviours = behaviours.with_columns(
        pl.col("time").str.to_datetime("%m/%d/%Y %I:%M:%S %p", time_unit="us").alias("timestamp")
    )
    clicked = behaviours.select("user_id", "timestamp", pl.col("shown").str.split(" ").alias("item_id")).explode(
        "item_id"
    )
    events = [
        clicked.filter(pl.col("item_id").str.ends_with("-1")).select(
            "user_id", pl.col("item_id").str.head(-2), "timestamp"
        )
    ]
    if config.history:
        events.insert(0, _earlier(behaviours))
    return ingest_tables(
        config,
        table(items.select("item_id", "title", "abstract", "category", "subcategory"), *pages),
        table(pl.concat(events), *logs),
        name="mind",
        source=SOURCE,
        home=HOME,
        licence=LICENCE,
        text_columns=("title", "abstract"),
    )


def _scan(path: Path, names: tuple[str, ...]) -> pl.LazyFrame:
    return scan_csv(path, dict.fromkeys(names, pl.String), separator="\t", header=False)


def _earlier(behaviours: pl.LazyFrame) -> pl.LazyFrame:
    """The clicks before each user's first impression, one second apart, the last one second before it."""
    first = behaviours.sort("timestamp", maintain_order=True).unique("user_id", keep="first", maintain_order=True)
    items = pl.col("history").str.split(" ")
    age = pl.int_ranges(items.list.len(), 0, -1)
    events = first.filter(pl.col("history").is_not_null()).select(
        "user_id", items.alias("item_id"), "timestamp", age.alias("age")
    )
    return events.explode("item_id", "age").select(
        "user_id", "item_id", pl.col("timestamp") - pl.duration(seconds=pl.col("age"))
    )


if __name__ == "__main__":
    run(MINDConfig, convert, __doc__)
