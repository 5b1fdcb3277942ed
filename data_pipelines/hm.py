"""H&M Personalized Fashion Recommendations: purchases, articles and pictures -> a dataset folder.

    python -m data_pipelines.hm --source DOWNLOADS --out data/hm

Source. The Kaggle competition "H&M Personalized Fashion Recommendations" (2022),
https://www.kaggle.com/competitions/h-and-m-personalized-fashion-recommendations: `transactions_train.csv`,
`articles.csv`, `images/<first three digits>/<article_id>.jpg`.

Licence. The competition's rules: non-commercial research and education; the data may not be given on.

Mapping.
    item_id      article_id, ten digits with leading zeros
    prod_name, product_type_name, colour_group_name, detail_desc   texts, line by line
    department_name, index_group_name, garment_group_name, product_code   attributes (one product has several articles)
    image        images/0xx/<article_id>.jpg
    user_id      customer_id
    timestamp    t_dat: a day. Purchases of one day stay in the order of the file, which tells nothing.
Left out: price and sales_channel_id, customers.csv. Buying an article twice on one day is one event. Two years are 31
million purchases; `--since 2020-06-01` takes the last four months.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from data_pipelines.source import SourceConfig, ingest_tables, run, scan_csv, table

__all__ = ["HMConfig", "convert"]

SOURCE = "H&M Personalized Fashion Recommendations (Kaggle 2022)"
HOME = "https://www.kaggle.com/competitions/h-and-m-personalized-fashion-recommendations"
LICENCE = "competition rules: non-commercial research and education, not to be given on"
TEXTS = ("prod_name", "product_type_name", "colour_group_name", "detail_desc")
ATTRIBUTES = ("department_name", "index_group_name", "garment_group_name", "product_code")


@dataclass(frozen=True, kw_only=True)
class HMConfig(SourceConfig):
    """Make a dataset folder of the H&M competition."""


def convert(config: HMConfig) -> Path:
    """Raises: DataError if a file or column is missing, or the output folder exists."""
    files = [config.source / name for name in ("articles.csv", "transactions_train.csv")]
    articles = scan_csv(files[0], dict.fromkeys(("article_id", *TEXTS, *ATTRIBUTES), pl.String))
    item_id = pl.col("article_id")
    image = "images/" + item_id.str.head(3) + "/" + item_id + ".jpg"
    columns = [item_id.alias("item_id"), *TEXTS, *ATTRIBUTES]
    if (config.source / "images").is_dir():
        columns.append(image.alias("image"))
    purchases = scan_csv(files[1], dict.fromkeys(("t_dat", "customer_id", "article_id"), pl.String))
    day = pl.col("t_dat").str.to_date("%Y-%m-%d").cast(pl.Datetime("us")).alias("timestamp")
    events = purchases.select(pl.col("customer_id").alias("user_id"), item_id.alias("item_id"), day)
    return ingest_tables(
        config,
        table(articles.select(columns), files[0]),
        table(events, files[1]),
        name="hm",
        source=SOURCE,
        home=HOME,
        licence=LICENCE,
        text_columns=TEXTS,
    )


if __name__ == "__main__":
    run(HMConfig, convert, __doc__)
