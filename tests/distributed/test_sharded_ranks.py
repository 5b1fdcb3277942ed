"""Ranks of a catalogue that lies in parts on several processes are those of a brute-force float64 reference."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmrec.errors import DataError
from mmrec.retrieval import rank_targets_sharded
from tests.test_retrieval import make_queries, random_case, slow_ranks

ROOT = Path(__file__).resolve().parents[2]


def launch(processes: int, case: Path, folder: Path) -> list[dict]:
    folder.mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}",
               str(ROOT / "tests/distributed/sharded_ranks.py"), str(case), str(folder)]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return [torch.load(folder / f"{number}.pt", weights_only=False) for number in range(processes)]


def early_ranks(scores: np.ndarray, case: dict) -> np.ndarray:
    """What competes was there by the time of the query and is not in its history; targets always do."""
    ranks = []
    for row, history, wanted, now in zip(scores, case["histories"], case["targets"], case["now"], strict=True):
        there = [v for v, since in enumerate(case["since"]) if v in wanted or (since <= now and v not in history)]
        for target in wanted:
            greater = sum(row[v] > row[target] for v in there)
            ranks.append(greater + (sum(row[v] == row[target] for v in there) - 1) / 2)
    return np.array(ranks)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_parts_of_the_catalogue_and_of_the_queries_give_the_ranks_of_the_whole(processes: int, tmp_path: Path) -> None:
    users, items, histories, targets = random_case(5, num_queries=37, num_items=131, num_targets=4)  # odd, many ties
    generator = np.random.default_rng(6)
    case = {"users": torch.tensor(users), "items": torch.tensor(items), "histories": histories, "targets": targets,
            "since": generator.integers(0, 9, 131), "now": generator.integers(0, 9, 37)}  # fmt: skip
    torch.save(case, tmp_path / "case.pt")
    scores = users @ items.T  # float64, exact
    expected = {which: slow_ranks(scores, histories, targets, which == "filtered") for which in ("filtered", "all")}
    expected |= {"kept": expected["all"], "early": early_ranks(scores, case)}
    queries = make_queries(histories, targets)
    seen = 0
    for found in launch(processes, tmp_path / "case.pt", tmp_path / "found"):
        for name, ranks in expected.items():
            np.testing.assert_array_equal(found[name], ranks, err_msg=name)
        for place, query in enumerate(found["rows"]):
            low, high = queries.target_offsets[query : query + 2]
            first = queries.take(found["rows"]).target_offsets[place]
            np.testing.assert_array_equal(found["mine"][first : first + high - low], expected["filtered"][low:high])
        seen += len(found["mine"])
    assert seen == len(queries.targets)


def test_a_part_of_another_size_is_an_error() -> None:
    with pytest.raises(DataError, match="catalog_shard"):
        rank_targets_sharded(torch.ones(1, 2), torch.ones(3, 2), make_queries([[]], [[0]]), num_items=4)
