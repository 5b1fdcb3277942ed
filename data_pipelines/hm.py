"""H&M Personalized Fashion Recommendations: purchases, articles and pictures -> a dataset folder.

    python -m data_pipelines.hm --source DOWNLOADS --out data/hm

Source. The Kaggle competition "H&M Personalized Fashion Recommendations" (2022): `transactions_train.csv`,
`articles.csv`, `images/<first three digits>/<article_id>.jpg`.

Licence. The competition's rules: non-commercial research and education; the data may not be given on.

Mapping.
    item_id      article_id, ten digits with leading zeros
    prod_name, product_type_name, colour_group_name, detail_desc   texts, line by line
    department_name, index_group_name, garment_group_name, product_code   attributes (one product has several articles)
    image        images/0xx/<article_id>.jpg
    user_id      customer_id
    timestamp    t_dat: a day. Purchases of one day stay in the order of the file, which tells nothing.
Left out: price and sales_channel_id, customers.csv. Buying an article twice on one day is one event.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from data_pipelines.source import SourceConfig, ingest_tables, run, scan_csv

__all__ = ["HMConfig", "convert"]

SOURCE = "H&M Personalized Fashion Recommendations (Kaggle 2022)"
LICENCE = "competition rules: non-commercial research and education, not to be given on"
TEXTS = ("prod_name", "product_type_name", "colour_group_name", "detail_desc")
ATTRIBUTES = ("department_name", "index_group_name", "garment_group_name", "product_code")


@dataclass(frozen=True, kw_only=True)
class HMConfig(SourceConfig):
    """Make a dataset folder of the H&M competition."""

    since: str | None = None
    """Leave out purchases before this day, such as 2020-06-01: two years are 31 million."""


def convert(config: HMConfig) -> Path:
    """Raises: DataError if a file or column is missing, or the output folder exists."""
    articles = scan_csv(config.source / "articles.csv", dict.fromkeys(("article_id", *TEXTS, *ATTRIBUTES), pl.String))
    item_id = pl.col("article_id")
    image = "images/" + item_id.str.head(3) + "/" + item_id + ".jpg"
    columns = [item_id.alias("item_id"), *TEXTS, *ATTRIBUTES]
    if (config.source / "images").is_dir():
        columns.append(image.alias("image"))
    purchases = scan_csv(
        config.source / "transactions_train.csv",
        {"t_dat": pl.String, "customer_id": pl.String, "article_id": pl.String},
    )
    day = pl.col("t_dat").str.to_date("%Y-%m-%d").cast(pl.Datetime("us")).alias("timestamp")
    events = purchases.select(pl.col("customer_id").alias("user_id"), item_id.alias("item_id"), day)
    return ingest_tables(
        config, articles.select(columns), events, name="hm", source=SOURCE, licence=LICENCE, text_columns=TEXTS,
        since=config.since,
    )  # fmt: skip


if __name__ == "__main__":
    run(HMConfig, convert, __doc__)
