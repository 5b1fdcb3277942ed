"""Training speed of mmrec's SASRec beside that of RecTools, one after the other on the same machine and data.

    python3 -m venv RECTOOLS && RECTOOLS/bin/pip install "rectools[torch]"
    python -m eval.benchmarks.rectools_sasrec --data data/amazon_beauty --rectools-python RECTOOLS/bin/python

Both: d 64, 2 blocks, histories of 50 events, sampled softmax, leave-one-out (the last two events of each user are not
trained on). RecTools draws 256 uniform negatives for each event and pads each batch of 128 histories; mmrec shares a
step's candidates and packs its histories. mmrec runs twice: with 256 uniform candidates a step, for speed, and with
those of its preset, several thousand, for the time to a quality.

Sequences per second are training histories over the seconds of an epoch's training. The time to a validation NDCG@10
(full ranking, seen items filtered, 4,096 users) includes preparing the data and leaves out imports and validation.
RecTools stops after ``--limit-s`` seconds of training.

Measured 2026-11-23, 2-core CPU, RecTools 0.19.0: 4,879 sequences/s with 256 candidates against 157, 31 times as many
(``--limit-s 140``, machine otherwise idle). With ``--limit-s 900``, other work beside it at times: mmrec reached
NDCG@10 .045 after 88 s; RecTools was at .0354 after 915 s (6 epochs), so that mmrec's time is less than 1/10.4 of its.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

INSTALL = 'python3 -m venv ENV && ENV/bin/pip install "rectools[torch]", then --rectools-python ENV/bin/python'
DIM, BLOCKS, LENGTH, NEGATIVES = 64, 2, 50, 256
VALIDATION_USERS = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="dataset folder of mmrec")
    parser.add_argument("--rectools-python", type=Path, help="interpreter of an environment with rectools[torch]")
    parser.add_argument("--target", type=float, default=0.045, help="validation NDCG@10 to reach")
    parser.add_argument("--limit-s", type=float, default=600, help="seconds of training after which RecTools stops")
    parser.add_argument("--side", choices=("rectools",), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        result = run_rectools(given.folder, given.target, given.limit_s)
        (given.folder / "result.json").write_text(json.dumps(result))
        return
    if given.rectools_python is not None and not given.rectools_python.is_file():
        sys.exit(f"--rectools-python {given.rectools_python} is no file; make one: {INSTALL}")
    with tempfile.TemporaryDirectory() as folder:
        quick = run_mmrec(given.data, Path(folder) / "quick", given.target, {
            "negatives": "uniform", "num_negatives": NEGATIVES}, max_epochs=3)  # fmt: skip
        ours = run_mmrec(given.data, Path(folder), given.target, {})
        results = {f"mmrec, {NEGATIVES} candidates": quick, "mmrec, candidates of the preset": ours}
        if given.rectools_python is None:
            print(f"mmrec alone; for RecTools beside it: {INSTALL}")
        else:
            side = ["--side", "rectools", "--folder", folder, "--data", str(given.data), "--target", str(given.target)]
            command = [str(given.rectools_python), __file__, *side, "--limit-s", str(given.limit_s)]
            subprocess.run(command, check=True, env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"})
            results["RecTools"] = json.loads((Path(folder) / "result.json").read_text())
    print_table(results, given.target)


def run_mmrec(
    data: Path, folder: Path, target: float, next_item: dict[str, Any], max_epochs: int = 100
) -> dict[str, Any]:
    """Train until the target is reached; leave the training events and validation targets in ``folder``."""
    from mmrec.training import preset
    from mmrec.training.trainer import Trainer

    folder.mkdir(parents=True, exist_ok=True)
    defaults = preset("id", data)
    model = dataclasses.replace(
        defaults.model,
        item_encoder=dataclasses.replace(defaults.model.item_encoder, dim=DIM),
        user_encoder=dataclasses.replace(defaults.model.user_encoder, num_blocks=BLOCKS, max_length=LENGTH),
        next_item=dataclasses.replace(defaults.model.next_item, **next_item),
    )
    config = dataclasses.replace(
        defaults, model=model, out=folder / "run", max_validation_queries=VALIDATION_USERS, max_epochs=max_epochs
    )
    curve: list[tuple[float, float, float]] = []  # seconds so far and of the epoch, validation not counted; NDCG@10
    started = time.perf_counter()

    def note(epoch: int, metrics: dict[str, float]) -> bool:
        seconds = time.perf_counter() - started - trainer.state.cost["validation_s"]
        curve.append((seconds, seconds - (curve[-1][0] if curve else 0.0), metrics["ndcg@10"]))
        return metrics["ndcg@10"] >= target

    trainer = Trainer(config, note)
    trainer.fit()
    _write_for_rectools(trainer, folder)
    return {"curve": curve, "num_histories": int((trainer.split.train.lengths >= 2).sum())}


def _write_for_rectools(trainer: Any, folder: Path) -> None:
    import polars as pl

    train, valid = trainer.split.train, trainer.validation.queries
    users = np.repeat(np.arange(len(train)), train.lengths)
    order = np.arange(len(users))  # RecTools sorts by time; one second between any two events keeps the order
    events = pl.DataFrame({"user_id": users, "item_id": train.item_idx, "weight": 1.0, "datetime": order})
    events.write_csv(folder / "events.csv")
    pl.DataFrame({"user_id": valid.user, "item_id": valid.targets}).write_csv(folder / "valid.csv")


def run_rectools(folder: Path, target: float, limit_s: float) -> dict[str, Any]:
    """Epoch by epoch until the target or the limit is reached."""
    import pandas as pd  # pyright: ignore[reportMissingImports]
    from rectools.dataset import Dataset  # pyright: ignore[reportMissingImports]
    from rectools.models import SASRecModel  # pyright: ignore[reportMissingImports]

    events = pd.read_csv(folder / "events.csv")
    events["datetime"] = pd.to_datetime(events["datetime"], unit="s")
    valid = pd.read_csv(folder / "valid.csv")
    wanted = dict(zip(valid["user_id"], valid["item_id"], strict=True))
    started = time.perf_counter()
    dataset = Dataset.construct(events)
    model = SASRecModel(
        n_factors=DIM, n_blocks=BLOCKS, n_heads=2, session_max_len=LENGTH, batch_size=128, loss="sampled_softmax",
        n_negatives=NEGATIVES, epochs=1, verbose=0, deterministic=False,
    )  # fmt: skip
    curve: list[tuple[float, float, float]] = []
    excluded, epoch = 0.0, started
    while not curve or (curve[-1][0] < limit_s and curve[-1][2] < target):
        model.fit(dataset) if not curve else model.fit_partial(dataset, min_epochs=1, max_epochs=1)
        now = time.perf_counter()
        lists = model.recommend(users=valid["user_id"].to_numpy(), dataset=dataset, k=10, filter_viewed=True)
        hits = lists[lists["item_id"] == lists["user_id"].map(wanted)]
        ndcg = float((1 / np.log2(hits["rank"] + 1)).sum() / len(valid))
        curve.append((now - started - excluded, now - epoch, ndcg))
        print(f"RecTools: {curve[-1][0]:.0f} s, validation NDCG@10 {ndcg:.4f}", file=sys.stderr, flush=True)
        epoch = time.perf_counter()
        excluded += epoch - now
    return {"curve": curve, "num_histories": int((events.groupby("user_id").size() >= 2).sum())}


def print_table(results: dict[str, dict[str, Any]], target: float) -> None:
    """Speed of the first row and time of the second, each against the last."""
    from rich.console import Console
    from rich.table import Table

    table = Table("", "sequences/s", "epoch, s", f"s to NDCG@10 {target:g}", "best NDCG@10", "epochs")
    speeds, times = [], []
    for name, result in results.items():
        curve = result["curve"]
        epochs = [seconds for _, seconds, _ in curve[1:]] or [curve[0][1]]  # the first one also prepares the data
        seconds = float(np.median(epochs))
        speeds.append(result["num_histories"] / seconds)
        reached = next((total for total, _, ndcg in curve if ndcg >= target), None)
        times.append(reached or curve[-1][0])
        until = f"{times[-1]:.1f}" if reached else f"more than {times[-1]:.0f}"
        best = max(ndcg for *_, ndcg in curve)
        table.add_row(name, f"{speeds[-1]:,.0f}", f"{seconds:.1f}", until, f"{best:.4f}", str(len(curve)))
    Console().print(table)
    if "RecTools" not in results:
        return
    print(f"sequences per second: {speeds[0] / speeds[-1]:.1f} times as many")
    print(f"time to NDCG@10 {target:g}: 1/{times[-1] / times[1]:.1f}")


if __name__ == "__main__":
    main()
