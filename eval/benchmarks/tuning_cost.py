"""What a step of training costs when more and more of an encoder learns, beside a step of ids alone.

    python -m eval.benchmarks.tuning_cost --data data/movielens_mm --encoder path:FOLDER --threads 1 --cases 3

The preset `hybrid` with this one encoder (other content left out) against the preset `id`, both with the batch size and
the candidates of `id`: ids alone; frozen, from the feature cache; the top block, from kept hidden states; the top
block, from the media; adapters in all blocks; everything. "A sample": the encoder reads --tower-items items of a step
and has its outputs of the last epoch's end for the others; renewing those counts as a share of each step. Median of
--steps steps after two to warm up, in one process, decoding and filling the cache not counted.

Measured 2026-11-23, one thread of a 2-core CPU shared with other work, all-MiniLM-L6-v2, times ids alone:

| | plots of MovieLens (10,600 items, 3,627 a step) | texts of the demo's world (400 items, 352 a step) |
|---|---|---|
| ids alone | 1 (.70 s a step) | 1 (.024 s a step) |
| frozen | 1.0 | 0.9 |
| top:1, kept hidden states, a sample of 32 / of 16 | 2.4 | 4.5 |
| the same, a sample of 128 | 3.0 | |
| top:1, kept hidden states, all items | | 38 |
| top:1, from the media, all items | | 101 |
| lora:8, a sample of 16 | | 18 |
| lora:8, all items | | 206 |
| all | | 237 |
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.table import Table

from mmrec.modality_encoders.foundation import FOUNDATION_ENCODERS
from mmrec.training import TrainConfig, preset
from mmrec.training.telemetry import MetricsLog, StepClock, progress_bar
from mmrec.training.trainer import Trainer

CASES = {
    "ids alone": None,
    "frozen, from the cache": ("frozen", True, False),
    "top:1, from kept hidden states, a sample": ("top:1", True, True),
    "top:1, from kept hidden states": ("top:1", True, False),
    "top:1, from the media": ("top:1", False, False),
    "lora:8, a sample": ("lora:8", False, True),
    "lora:8": ("lora:8", False, False),
    "all": ("all", False, False),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="dataset folder")
    parser.add_argument("--modality", choices=FOUNDATION_ENCODERS, default="text")
    parser.add_argument("--encoder", required=True, help="foundation encoder")
    parser.add_argument("--batch-size", type=int, help="histories a step; the default is that of the preset id")
    parser.add_argument("--negatives", type=int, help="candidates drawn a step; the default is that of the preset id")
    parser.add_argument("--tower-items", type=int, default=32, help="items of a step in the cases with a sample")
    parser.add_argument("--cases", type=int, default=len(CASES), help="so many of the cases, in the order of the table")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    plain = preset("id", arguments.data)
    negatives = arguments.negatives or plain.model.next_item.num_negatives
    plain = replace(
        plain,
        batch_size=arguments.batch_size or plain.batch_size,
        model=replace(plain.model, next_item=replace(plain.model.next_item, num_negatives=negatives)),
    )
    table = Table(title=f"{arguments.encoder} on {arguments.data}, {arguments.threads} threads", title_justify="left")
    for heading in ("what learns", "s/step", "s to renew", "items a step", "times ids alone"):
        table.add_column(heading, justify="left" if heading == "what learns" else "right")
    reference = 0.0
    for name, case in list(CASES.items())[: arguments.cases]:
        with tempfile.TemporaryDirectory() as folder:
            config = _config(plain, case, arguments, Path(folder) / "run")
            seconds, renewal, steps, items = _seconds_a_step(config, arguments.steps)
        whole = seconds + renewal / steps
        reference = reference or whole
        table.add_row(name, f"{seconds:.3f}", f"{renewal:.2f}", f"{items:,}", f"{whole / reference:.1f}")
    Console().print(table)


def _config(
    plain: TrainConfig, case: tuple[str, bool, bool] | None, arguments: argparse.Namespace, out: Path
) -> TrainConfig:
    if case is None:
        return replace(plain, out=out)
    tune, cached, sampled = case
    encoder = FOUNDATION_ENCODERS[arguments.modality](encoder=arguments.encoder, tune=tune)
    encoders = {arguments.modality: encoder, **plain.model.item_encoder.encoders}
    model = replace(plain.model, item_encoder=replace(plain.model.item_encoder, encoders=encoders))
    sizes = {"tower_batch_size": plain.batch_size, "tower_negatives": plain.model.next_item.num_negatives}
    sizes["tower_items"] = arguments.tower_items if sampled else 0
    return replace(plain, out=out, model=model, feature_cache=cached, **sizes)


def _seconds_a_step(config: TrainConfig, steps: int) -> tuple[float, float, int, int]:
    """Median seconds of a step, seconds to renew outputs, once an epoch of so many steps; items of the last step."""
    trainer = Trainer(config)
    trainer.catalog.warm()
    started = time.perf_counter()
    trainer.towers.renew_outputs()
    renewal = time.perf_counter() - started
    progress, trainer.bar = progress_bar(False)
    trainer.log = MetricsLog(None, 0, trainer.accelerator)
    clock, found, items = StepClock(), [], 0
    with progress:
        trainer.bar.start("steps", steps + 2, 0)
        for number, batch in enumerate(trainer.loader.epoch(0)):
            started = time.perf_counter()
            trainer._step(batch, clock)
            found.append(time.perf_counter() - started)
            items = len(batch.step_items)
            if number == steps + 1:
                break
    return median(found[2:]), renewal, trainer.sampler.num_steps(0), items


if __name__ == "__main__":
    main()
