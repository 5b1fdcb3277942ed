"""What mmrec's training loop costs beside a plain PyTorch loop of the same model, data and steps; and its checkpoints.

    mmrec ingest --interactions ../shared/data/amazon_beauty/interactions.parquet --out data/amazon_beauty
    python -m eval.benchmarks.training_overhead --data data/amazon_beauty

Rounds of three loops in one process, each from the same initial weights through the same steps: by hand (batches made
beforehand; forward, backward, clip, AdamW, nothing else), mmrec (its sampler and loader beside the steps, its losses,
metrics and guards), and mmrec with a checkpoint every 50 steps. Seconds are those of the steps, without validation;
of the rounds the medians count.

Measured 2026-11-26, 2-core CPU (`--rounds 2 --steps 70`, preset `id`): by hand 524 ms a step, mmrec 545 (1.04 times as
much; .2 % of it waiting for data), saving every 50 steps 562, of which rounds differ by more (596 and 530). By the cost
ledger of a whole run of the recipe (552 s) training waited .2 % of its time for checkpoints.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.table import Table

from mmrec.training import preset
from mmrec.training.config import TrainConfig
from mmrec.training.trainer import Trainer

WARM_UP = 10
SAVE_EVERY = 50


def by_hand(config: TrainConfig, steps: int) -> float:
    """Seconds a step of the plain loop."""
    trainer = Trainer(config)
    model, batches = trainer.recommender, []
    for epoch in range(config.max_epochs):
        batches += trainer.loader.epoch(epoch)
        if len(batches) >= steps:
            break
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), fused=True)
    started = 0.0
    for number, batch in enumerate(batches[:steps]):
        if number == WARM_UP:
            started = time.perf_counter()
        loss = model.total(model(batch))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
    return (time.perf_counter() - started) / (len(batches[:steps]) - WARM_UP)


def by_mmrec(config: TrainConfig) -> tuple[float, float]:
    """Seconds a step of mmrec's loop, and the share of them spent waiting for data."""
    run = Trainer(config).fit()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line][WARM_UP:]
    seconds = sum(line["seconds"] for line in steps)
    return seconds / len(steps), sum(line["seconds"] * line["data_wait"] for line in steps) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="dataset folder of mmrec")
    parser.add_argument("--preset", default="id")
    parser.add_argument("--steps", type=int, default=210)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    logging.getLogger("mmrec").setLevel(logging.WARNING)
    found: dict[str, list[float]] = {"by hand": [], "mmrec": [], "mmrec, saving": []}
    waits = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(given.rounds):
            common = {"max_steps": given.steps, "max_epochs": 999, "patience": 999, "max_validation_queries": 16}
            config = dataclasses.replace(
                preset(given.preset, given.data), out=Path(folder) / f"{number}", checkpoint_steps=10**9, **common
            )
            found["by hand"].append(by_hand(config, given.steps))
            seconds, wait = by_mmrec(config)
            found["mmrec"].append(seconds)
            waits.append(wait)
            saving = dataclasses.replace(config, out=Path(folder) / f"{number}-saving", checkpoint_steps=SAVE_EVERY)
            found["mmrec, saving"].append(by_mmrec(saving)[0])
    table = Table("loop", "ms a step", "times by hand", "rounds, ms")
    base = median(found["by hand"])
    for name, values in found.items():
        rounds = "  ".join(f"{1e3 * value:.1f}" for value in values)
        table.add_row(name, f"{1e3 * median(values):.1f}", f"{median(values) / base:.3f}", rounds)
    Console().print(f"{given.steps} steps, {torch.get_num_threads()} threads", table)
    cost = median(found["mmrec, saving"]) / median(found["mmrec"]) - 1
    print(f"data-wait {median(waits):.1%}; a checkpoint every {SAVE_EVERY} steps costs {cost:.1%}")


if __name__ == "__main__":
    main()
