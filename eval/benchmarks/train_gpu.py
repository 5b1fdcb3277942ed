"""Training on a GPU: events and items a second, distance to the limit and peak memory, at the sizes that matter.

    python -m eval.benchmarks.train_gpu                      (on a machine with CUDA; nothing is downloaded)
    python -m eval.benchmarks.train_gpu --only ids_1m features --shrink 1000      (to try the script on a CPU)

Each workload is a run of mmrec on a generated dataset, by the same trainer, loader and telemetry as any other: what is
shown is what its metrics.jsonl says of the steps after the first ten. Random networks where there are networks.

- ids_1m, ids_10m: ids alone, histories of 100 events, 8,192 sampled negatives; the table of 10 million sharded by row.
- softmax_1m: the same as ids_1m with the full softmax over the catalogue, vectors refreshed once.
- features: ready-made vectors of 768 and ids, 200,000 items.
- vit_b: pictures by a ViT-B/16 that learns, 64 items a step. videomae_b: clips by a VideoMAE-B, 16 items a step.
- movielens: the size of MovieLens-1M (6,040 users, 3,700 items, 1 million events), the preset's settings, one epoch.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from rich.console import Console
from rich.table import Table

from mmrec.data.ingest import IngestConfig, ingest
from mmrec.modality_encoders.foundation import FoundationImageConfig, FoundationVideoConfig
from mmrec.objectives import NextItemConfig
from mmrec.training import preset
from mmrec.training.config import TrainConfig
from mmrec.training.trainer import Trainer
from mmrec.user_encoders import SASRecConfig

WARM_UP = 10
LENGTH = 100


def log_of_events(folder: Path, num_users: int, num_items: int, length: int) -> Path:
    """Users of the same length who take items by a power law, as interactions.parquet."""
    generator = np.random.default_rng(0)
    ranks = np.minimum(num_items * generator.random(num_users * length) ** 3, num_items - 1).astype(np.int64)
    path = folder / "interactions.parquet"
    pl.DataFrame(
        {
            "user_id": np.repeat(np.arange(num_users), length),
            "item_id": ranks,
            "position": np.tile(np.arange(length), num_users),
        }
    ).write_parquet(path)
    return path


def dataset(
    folder: Path, num_users: int, num_items: int, length: int = LENGTH, width: int = 0, media: str | None = None
) -> Path:
    """A generated dataset: ids, vectors of a width, or pictures or clips of noise."""
    folder.mkdir()
    log, given = log_of_events(folder, num_users, num_items, length), {}
    if width or media:
        items: dict[str, Any] = {"item_id": np.arange(num_items)}
        if media:
            items[media] = [f"{n % 16}.{'jpg' if media == 'image' else 'mp4'}" for n in range(num_items)]
            write_media(folder, media)
        pl.DataFrame(items).write_parquet(folder / "items.parquet")
        given["items"] = folder / "items.parquet"
    if width:
        np.save(folder / "vec.npy", np.random.default_rng(1).standard_normal((num_items, width), dtype=np.float32))
        given["features"] = (f"vec={folder / 'vec.npy'}",)
    return ingest(IngestConfig(interactions=log, media_root=folder, out=folder / "dataset", **given))


def write_media(folder: Path, media: str) -> None:
    """Sixteen pictures of 256 x 256, or clips of 16 frames of 224 x 224."""
    import av
    from PIL import Image

    generator = np.random.default_rng(2)
    for n in range(16):
        if media == "image":
            noise = generator.integers(0, 256, (256, 256, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / f"{n}.jpg", quality=85)
            continue
        with av.open(str(folder / f"{n}.mp4"), "w") as container:
            stream: Any = container.add_stream("libx264", rate=8)
            stream.width = stream.height = 224
            stream.pix_fmt = "yuv420p"
            for _ in range(16):
                noise = generator.integers(0, 256, (224, 224, 3), dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
            container.mux(stream.encode())


def of_ids(config: TrainConfig, dim: int, **changes: Any) -> TrainConfig:
    """Two blocks of SASRec at a width, 256 histories a step."""
    model = dataclasses.replace(
        config.model,
        item_encoder=dataclasses.replace(config.model.item_encoder, dim=dim),
        user_encoder=SASRecConfig(max_length=LENGTH, num_blocks=2, num_heads=4),
        next_item=changes.pop("next_item", NextItemConfig(num_negatives=8192)),
    )
    return dataclasses.replace(config, model=model, batch_size=256, **changes)


def towers(config: TrainConfig, **changes: Any) -> TrainConfig:
    """Networks that learn from the first step on, from a sample of each step's items."""
    model = dataclasses.replace(config.model, next_item=NextItemConfig(num_negatives=256))
    return dataclasses.replace(config, model=model, rest_epochs=0, feature_cache=False, batch_size=32, **changes)


def workloads(shrink: int) -> dict[str, Callable[[Path], TrainConfig]]:
    """What makes the dataset of each workload in a folder, and the settings of its run."""

    def small(number: int, least: int = 64) -> int:
        return max(number // shrink, least)

    def ids(folder: Path, num_items: int, dim: int, **changes: Any) -> TrainConfig:
        data = dataset(folder, small(20_000, 300), small(num_items, 512))
        return of_ids(preset("id", data), dim, **changes)

    def vit(folder: Path) -> TrainConfig:
        data = dataset(folder, small(2_000, 100), small(2_000), length=10, media="image")
        encoder = FoundationImageConfig(encoder="timm:vit_base_patch16_224@random", tune="all")
        return towers(preset("content", data, encoders={"image": encoder}), tower_items=64)

    def videomae(folder: Path) -> TrainConfig:
        data = dataset(folder, small(2_000, 100), small(512), length=10, media="video")
        encoder = FoundationVideoConfig(encoder="transformers:videomae@random", tune="all")
        return towers(preset("content", data, encoders={"video": encoder}), tower_items=16)

    return {
        "ids_1m": lambda folder: ids(folder, 1_000_000, 256),
        "ids_10m": lambda folder: ids(folder, 10_000_000, 128, shard_ids=True),
        "softmax_1m": lambda folder: ids(folder, 1_000_000, 256, next_item=NextItemConfig(refresh_steps=10**6)),
        "features": lambda folder: of_ids(
            preset("features", dataset(folder, small(20_000, 300), small(200_000, 512), width=768)), 256
        ),
        "vit_b": vit,
        "videomae_b": videomae,
        "movielens": lambda folder: preset("id", dataset(folder, small(6_040), small(3_700), length=165)),
    }


def measure(config: TrainConfig, run: Path, steps: int) -> dict[str, Any]:
    """Train so many steps, and say what the run's own metrics say of them."""
    precision = "bf16" if torch.cuda.is_available() else "no"
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    settings = {"max_steps": steps, "trackers": (), "max_validation_queries": 64, "checkpoint_steps": 10**9}
    Trainer(dataclasses.replace(config, out=run, mixed_precision=precision, patience=999, **settings)).fit()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    timed = [line for line in lines if "loss" in line][WARM_UP:]
    epoch = next(line for line in reversed(lines) if "events_per_s" in line)
    cost = json.loads((run / "cost.json").read_text())
    seconds = sum(line["seconds"] for line in timed)
    return {
        "ms a step": 1e3 * seconds / len(timed),
        "events/s": sum(line["events"] for line in timed) / seconds,
        "items/s": sum(line["items"] for line in timed) / seconds,
        "data-wait": sum(line["seconds"] * line["data_wait"] for line in timed) / seconds,
        "of matmul": epoch.get("matmul_share"),
        "MFU": epoch.get("mfu"),
        "peak GiB": cost.get("peak_device_memory_mb", cost["peak_memory_mb"]) / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=workloads(1), help="workloads; all without it")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--shrink", type=int, default=1, help="divide users and items, to try the script")
    parser.add_argument("--out", type=Path, help="file of JSON lines to add the results to")
    given = parser.parse_args()
    logging.getLogger("mmrec").setLevel(logging.WARNING)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    results = []
    for name, make in workloads(given.shrink).items():
        if given.only and name not in given.only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            found = measure(make(Path(folder) / "data"), Path(folder) / "run", given.steps)
        results.append({"workload": name, **found})
        print(json.dumps({"device": device, "torch": torch.__version__, **results[-1]}), flush=True)
        if given.out is not None:
            with given.out.open("a") as file:
                file.write(json.dumps({"device": device, "torch": torch.__version__, **results[-1]}) + "\n")
    table = Table(title=f"{device}, torch {torch.__version__}", title_justify="left")
    for heading in results[0]:
        table.add_column(heading, justify="left" if heading == "workload" else "right")
    for row in results:
        table.add_row(*(_cell(heading, value) for heading, value in row.items()))
    Console(width=140).print(table)


def _cell(heading: str, value: Any) -> str:
    if value is None:
        return ""
    if heading in ("data-wait", "of matmul", "MFU"):
        return f"{value:.1%}"
    return value if isinstance(value, str) else f"{value:,.1f}"


if __name__ == "__main__":
    main()
