"""Amazon Beauty, item ids alone. Leave-one-out, full ranking, seen items filtered; trained on all but the last two.

mmrec ingest --interactions ../shared/data/amazon_beauty/interactions.parquet --out data/amazon_beauty
python -m train.amazon_beauty id_only --seed 0 --out runs/amazon_beauty-0
mmrec evaluate runs/amazon_beauty-0 --data data/amazon_beauty --out results/amazon_beauty-0
"""

from __future__ import annotations

from pathlib import Path

from mmrec.cli import train_recipes
from mmrec.training import TrainConfig, preset

DATA = Path("data/amazon_beauty")


def id_only() -> TrainConfig:
    """The preset's rules."""
    return preset("id", DATA)


if __name__ == "__main__":
    train_recipes(id_only)
