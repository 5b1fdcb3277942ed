"""What mmrec's training loop costs beside a plain PyTorch loop of the same model, data and steps; and its checkpoints.

    mmrec ingest --interactions ../shared/data/amazon_beauty/interactions.parquet --out data/amazon_beauty
    python -m eval.benchmarks.training_overhead --data data/amazon_beauty

Rounds of two loops in one process, each from the same initial weights through the same steps: by hand (batches made
beforehand; forward, backward, clip, AdamW, nothing else) and mmrec (its sampler and loader beside the steps, its
losses, metrics and guards, a checkpoint every 50 steps). Steps of the two are compared one by one, without validation,
and the median counts, for other work on the machine disturbs some of them.

What a checkpoint costs drowns in such noise, so its bound is measured: the time that training waits for the copy (in
the run's own ledger), and the processor time of the thread that writes, all of which training would miss if it kept
every core busy.

Measured 2026-11-26, 2-core CPU (`--rounds 2 --steps 70`, preset `id`; other work shared the machine in the second
round): by hand 530 and 756 ms a step, mmrec 561 and 766; step by step 1.064 and 1.000 times as much, .2 % of it waiting
for data. A checkpoint costs at most 29 ms of waiting for the copy and 84 ms of a processor: .40 % of 50 steps.
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


def by_hand(config: TrainConfig, steps: int) -> list[float]:
    """Seconds of each step of the plain loop."""
    trainer = Trainer(config)
    model, batches = trainer.recommender, []
    for epoch in range(config.max_epochs):
        batches += trainer.loader.epoch(epoch)
        if len(batches) >= steps:
            break
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), fused=True)
    seconds = []
    for batch in batches[:steps]:
        started = time.perf_counter()
        loss = model.total(model(batch))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)
    return seconds


def by_mmrec(config: TrainConfig) -> tuple[list[float], float, float, float]:
    """Seconds of each step of mmrec's loop; the share of them spent waiting for data; for a checkpoint, seconds that
    training waits and that the writer computes."""
    trainer = Trainer(config)
    run = trainer.fit()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    waited = sum(line["seconds"] * line["data_wait"] for line in steps) / sum(line["seconds"] for line in steps)
    written = trainer.writer.num_written
    copying, writing = trainer.state.cost["checkpoint_s"] / written, trainer.writer.processor_s / written
    return [line["seconds"] for line in steps], waited, copying, writing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="dataset folder of mmrec")
    parser.add_argument("--preset", default="id")
    parser.add_argument("--steps", type=int, default=110)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    logging.getLogger("mmrec").setLevel(logging.WARNING)
    table = Table(
        "round", "by hand, ms a step", "mmrec, ms a step", "ratio of steps", "data-wait", "copy, ms", "write, CPU ms"
    )
    ratios, costs = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(given.rounds):
            config = dataclasses.replace(
                preset(given.preset, given.data), out=Path(folder) / f"{number}", checkpoint_steps=SAVE_EVERY,
                max_steps=given.steps, max_epochs=999, patience=999, max_validation_queries=16,
            )  # fmt: skip
            hand = by_hand(config, given.steps)[WARM_UP:]
            steps, waited, copying, writing = by_mmrec(config)
            steps = steps[WARM_UP:]
            ratios.append(median(step / other for step, other in zip(steps, hand, strict=True)))
            costs.append((copying + writing) / (SAVE_EVERY * median(steps)))
            times = [f"{1e3 * value:.1f}" for value in (median(hand), median(steps))]
            parts = [f"{1e3 * value:.0f}" for value in (copying, writing)]
            table.add_row(str(number + 1), *times, f"{ratios[-1]:.3f}", f"{waited:.1%}", *parts)
    Console().print(f"{given.steps} steps, {torch.get_num_threads()} threads", table)
    print(
        f"mmrec's steps take {median(ratios):.3f} times those by hand; "
        f"a checkpoint every {SAVE_EVERY} steps costs at most {max(costs):.2%}"
    )


if __name__ == "__main__":
    main()
