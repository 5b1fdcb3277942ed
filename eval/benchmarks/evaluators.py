"""Full-ranking evaluation of the same vectors by mmrec, RecBole and RecTools: the same metrics, and the time of each.

    python3 -m venv RECTOOLS && RECTOOLS/bin/pip install "rectools[torch]"
    python3 -m venv RECBOLE && RECBOLE/bin/pip install recbole "numpy<2" "scipy<1.14" "pandas<2.3" torch==2.11.0
    python -m eval.benchmarks.evaluators --rectools-python RECTOOLS/bin/python --recbole-python RECBOLE/bin/python

22,363 users and 12,101 items, unit vectors of 64 numbers; one target a user, near which the user's vector was drawn;
8 items of each history are no candidates. Every package runs in a process and an environment of its own, with
``--threads`` threads, twice; the second time counts. What is timed goes from vectors to the means of HR, NDCG and MRR
at 10: `rank_targets` and `ranking_metrics`; RecBole's `Trainer.evaluate` of a BPR model that holds the vectors, with
its default ``eval_batch_size`` and with one of 128 users; RecTools' ranker of implicit and `calc_metrics`. Reading
data and building tables of interactions are not counted. The means have to agree to 1e-6, or the command fails: scores
that differ in the last bit change places in a few lists.

Measured 2026-11-26, one thread each of a 2-core CPU whose other core ran tests; RecBole 1.2.1, RecTools 0.19.0:

| | HR@10 | NDCG@10 | MRR@10 | clock, s | times |
|---|---|---|---|---|---|
| mmrec | .5172830 | .3651663 | .3178293 | .69 | 1 |
| RecBole, its default batch (one user of so many items) | .5172830 | .3651668 | .3178297 | 9.99 | 14.5 |
| RecBole, batches of 128 users | .5172830 | .3651668 | .3178297 | 2.75 | 4.0 |
| RecTools | .5172830 | .3651660 | .3178289 | 1.93 | 2.8 |

The product of the vectors alone takes .55 s of one processor (eval/benchmarks/ranking.py).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

USERS, ITEMS, DIM, SEEN = 22_363, 12_101, 64, 8
METRICS = ("hr@10", "ndcg@10", "mrr@10")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recbole-python", type=Path, help="interpreter of an environment with recbole")
    parser.add_argument("--rectools-python", type=Path, help="interpreter of an environment with rectools[torch]")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--users", type=int, default=USERS)
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        sys.argv = sys.argv[:1]  # RecBole reads it too
        found = SIDES[given.side](given.folder)
        (given.folder / f"{given.side}.json").write_text(json.dumps(found))
        return
    pythons = {"mmrec": Path(sys.executable), "recbole": given.recbole_python, "rectools": given.rectools_python}
    for name, python in pythons.items():
        if python is not None and not python.is_file():
            sys.exit(f"--{name}-python {python} is no file; the help tells how to make the environment")
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        write_case(folder, given.users, given.items)
        results: dict[str, Any] = {}
        for name, python in pythons.items():
            if python is None:
                print(f"left out: {name}: no --{name}-python given")
                continue
            threads = {f"{library}_NUM_THREADS": str(given.threads) for library in ("OMP", "MKL", "OPENBLAS")}
            paths = {"PYTHONPATH": str(Path(__file__).parents[2])} if name == "mmrec" else {}
            clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
            command = [str(python), "-W", "ignore", __file__, "--side", name, "--folder", work]
            subprocess.run(command, check=True, cwd=work, env=clean | threads | paths)
            results |= json.loads((folder / f"{name}.json").read_text())
    print_table(results)


def write_case(folder: Path, num_users: int, num_items: int) -> None:
    """users.npy, items.npy (unit vectors), targets.npy, seen.npy; every item is in some history."""
    generator = np.random.default_rng(0)
    items = generator.standard_normal((num_items, DIM), dtype=np.float32)
    items /= np.linalg.norm(items, axis=1, keepdims=True)
    targets = generator.integers(0, num_items, num_users)
    users = items[targets] + 0.3 * generator.standard_normal((num_users, DIM), dtype=np.float32)
    users /= np.linalg.norm(users, axis=1, keepdims=True)
    # Distinct within a row, and never the target: another stretch of a permutation for each user.
    order, start = generator.permutation(num_items), np.arange(num_users)[:, None] * SEEN
    seen = order[(start + np.arange(SEEN + 1)) % num_items]
    seen = np.where(seen[:, :SEEN] == targets[:, None], seen[:, SEEN:], seen[:, :SEEN])
    for name, values in (("users", users), ("items", items), ("targets", targets), ("seen", seen)):
        np.save(folder / f"{name}.npy", values)


def read_case(folder: Path) -> list[np.ndarray]:
    return [np.load(folder / f"{name}.npy") for name in ("users", "items", "targets", "seen")]


def second_time(work: Callable[[], dict[str, float]]) -> dict[str, Any]:
    """The metrics, and the seconds of the clock and of the processor of the second of two times."""
    work()
    clock, processor = time.perf_counter(), time.process_time()
    metrics = work()
    seconds = {"clock_s": time.perf_counter() - clock, "processor_s": time.process_time() - processor}
    return {"metrics": {name: float(metrics[name]) for name in METRICS}, **seconds}


def run_mmrec(folder: Path) -> dict[str, Any]:
    import torch

    from mmrec.data.sequences import Sequences
    from mmrec.data.splits import Queries
    from mmrec.metrics.ranking import ranking_metrics
    from mmrec.retrieval import rank_targets

    users, items, targets, seen = read_case(folder)
    history = Sequences(
        user_ids=np.arange(len(users)), offsets=np.arange(len(users) + 1) * SEEN, timestamps=None, split=None,
        item_idx=seen.ravel().astype(np.int32), order="position",
    )  # fmt: skip
    offsets = np.arange(len(users) + 1)
    queries = Queries(user=offsets[:-1], history=history, target_offsets=offsets, targets=targets.astype(np.int32))
    vectors = torch.from_numpy(users), torch.from_numpy(items)

    def work() -> dict[str, float]:
        found = ranking_metrics(rank_targets(*vectors, queries), offsets, (10,))
        return {name: values.mean() for name, values in found.items()}

    return {"mmrec": second_time(work)}


def run_recbole(folder: Path) -> dict[str, Any]:
    import torch
    from recbole.config import Config  # pyright: ignore[reportMissingImports]
    from recbole.data import create_dataset, data_preparation  # pyright: ignore[reportMissingImports]
    from recbole.model.general_recommender import BPR  # pyright: ignore[reportMissingImports]
    from recbole.trainer import Trainer  # pyright: ignore[reportMissingImports]

    users, items, targets, seen = read_case(folder)
    (folder / "case").mkdir()
    for part, taken in (("train", seen[:, :-1]), ("valid", seen[:, -1:]), ("test", targets[:, None])):
        pairs = np.stack([np.repeat(np.arange(len(users)), taken.shape[1]), taken.ravel()], axis=1)
        rows = "\n".join(f"{user}\t{item}" for user, item in pairs)
        (folder / "case" / f"case.{part}.inter").write_text(f"user_id:token\titem_id:token\n{rows}\n")
    results = {}
    for label, batch in (("recbole, default batch", None), ("recbole, batches of 128 users", 128 * (len(items) + 1))):
        settings = {
            "data_path": str(folder), "benchmark_filename": ["train", "valid", "test"], "embedding_size": DIM,
            "load_col": {"inter": ["user_id", "item_id"]}, "metrics": ["Hit", "NDCG", "MRR"], "topk": [10],
            "metric_decimal_place": 9, "use_gpu": False, "show_progress": False, "state": "ERROR",
            "checkpoint_dir": str(folder / "saved"), **({} if batch is None else {"eval_batch_size": batch}),
        }  # fmt: skip
        config = Config(model="BPR", dataset="case", config_dict=settings)
        dataset = create_dataset(config)
        train, _, test = data_preparation(config, dataset)
        model = BPR(config, train.dataset)
        for field, weight, vectors in (
            ("user_id", model.user_embedding.weight, users),
            ("item_id", model.item_embedding.weight, items),
        ):
            rows = torch.from_numpy(dataset.token2id(field, np.arange(len(vectors)).astype(str)))
            weight.data[rows] = torch.from_numpy(vectors)
        trainer = Trainer(config, model)

        def work(trainer: Any = trainer, test: Any = test) -> dict[str, float]:
            found = trainer.evaluate(test, load_best_model=False, show_progress=False)
            return {"hr@10": found["hit@10"], "ndcg@10": found["ndcg@10"], "mrr@10": found["mrr@10"]}

        results[label] = second_time(work)
    return results


def run_rectools(folder: Path) -> dict[str, Any]:
    import pandas as pd  # pyright: ignore[reportMissingImports]
    import scipy.sparse as sp
    from rectools import metrics  # pyright: ignore[reportMissingImports]
    from rectools.models.rank import Distance, ImplicitRanker  # pyright: ignore[reportMissingImports]

    users, items, targets, seen = read_case(folder)
    rows = np.repeat(np.arange(len(users)), SEEN)
    filtered = sp.csr_matrix((np.ones(seen.size, dtype=np.float32), (rows, seen.ravel())), (len(users), len(items)))
    taken = pd.DataFrame({"user_id": np.arange(len(users)), "item_id": targets})
    wanted = {
        "hr@10": metrics.HitRate(10),
        "ndcg@10": metrics.NDCG(10, divide_by_achievable=True),
        "mrr@10": metrics.MRR(10),
    }

    def work() -> dict[str, float]:
        ranker = ImplicitRanker(Distance.DOT, subjects_factors=users, objects_factors=items)
        user, item, _ = ranker.rank(np.arange(len(users)), k=10, filter_pairs_csr=filtered)
        lists = pd.DataFrame({"user_id": user, "item_id": item})
        lists["rank"] = lists.groupby("user_id").cumcount() + 1
        return metrics.calc_metrics(wanted, reco=lists, interactions=taken)

    return {"rectools": second_time(work)}


SIDES = {"mmrec": run_mmrec, "recbole": run_recbole, "rectools": run_rectools}


def print_table(results: dict[str, Any]) -> None:
    """Metrics and seconds of each, and how many times those of mmrec; fails where the metrics differ."""
    from rich.console import Console
    from rich.table import Table

    table = Table("", *METRICS, "clock, s", "times", "processor, s", "times")
    ours = results["mmrec"]
    for name, one in results.items():
        seconds = [
            cell for key in ("clock_s", "processor_s") for cell in (f"{one[key]:.2f}", f"{one[key] / ours[key]:.1f}")
        ]
        table.add_row(name, *(f"{one['metrics'][metric]:.6f}" for metric in METRICS), *seconds)
    Console().print(table)
    for name, one in results.items():
        for metric in METRICS:
            if abs(one["metrics"][metric] - ours["metrics"][metric]) > 1e-6:
                sys.exit(f"{metric}: {name} has {one['metrics'][metric]}, mmrec {ours['metrics'][metric]}")


if __name__ == "__main__":
    main()
