"""What a step of training costs when more and more of an encoder learns, beside a step of ids alone.

    python -m eval.benchmarks.tuning_cost --data demo/dataset --encoder path:FOLDER --threads 1 --steps 3

The preset `hybrid` with this one encoder (other content left out) against the preset `id`, both with the batch size and
the candidates of `id`: ids alone; frozen, from the feature cache; the top block, from kept hidden states; the top
block, from the media; adapters in all blocks; everything. Median of --steps steps after two to warm up, in one process,
decoding and filling the cache not counted.

Measured 2026-11-23, one thread of a 2-core CPU shared with other work, texts of the demo's world (400 items, 352 a
step) by all-MiniLM-L6-v2, times ids alone (.023 s a step): frozen 1.1; top:1 from kept hidden states 44, from the
media 123; lora:8 244; all 282.
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
from mmrec.training.telemetry import StepClock, progress_bar
from mmrec.training.trainer import Trainer

CASES = {
    "ids alone": None,
    "frozen, from the cache": ("frozen", True),
    "top:1, from kept hidden states": ("top:1", True),
    "top:1, from the media": ("top:1", False),
    "lora:8": ("lora:8", False),
    "all": ("all", False),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="dataset folder")
    parser.add_argument("--modality", choices=FOUNDATION_ENCODERS, default="text")
    parser.add_argument("--encoder", required=True, help="foundation encoder")
    parser.add_argument("--batch-size", type=int, help="histories a step; the default is that of the preset id")
    parser.add_argument("--negatives", type=int, help="candidates drawn a step; the default is that of the preset id")
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
    for heading in ("what learns", "s/step", "items a step", "times ids alone"):
        table.add_column(heading, justify="left" if heading == "what learns" else "right")
    reference = 0.0
    for name, case in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            seconds, items = _seconds_a_step(_config(plain, case, arguments, Path(folder) / "run"), arguments.steps)
        reference = reference or seconds
        table.add_row(name, f"{seconds:.3f}", f"{items:,}", f"{seconds / reference:.1f}")
    Console().print(table)


def _config(plain: TrainConfig, case: tuple[str, bool] | None, arguments: argparse.Namespace, out: Path) -> TrainConfig:
    if case is None:
        return replace(plain, out=out)
    tune, cached = case
    encoder = FOUNDATION_ENCODERS[arguments.modality](encoder=arguments.encoder, tune=tune)
    encoders = {arguments.modality: encoder, **plain.model.item_encoder.encoders}
    model = replace(plain.model, item_encoder=replace(plain.model.item_encoder, encoders=encoders))
    sizes = {"tower_batch_size": plain.batch_size, "tower_negatives": plain.model.next_item.num_negatives}
    return replace(plain, out=out, model=model, feature_cache=cached, **sizes)


def _seconds_a_step(config: TrainConfig, steps: int) -> tuple[float, int]:
    """Median seconds of a step, and the distinct items of the last one."""
    trainer = Trainer(config)
    trainer.catalog.warm()
    progress, trainer.bar = progress_bar(False)
    trainer._pending = []
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
    return median(found[2:]), items


if __name__ == "__main__":
    main()
