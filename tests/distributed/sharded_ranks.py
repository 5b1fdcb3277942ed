"""Run by the tests under torchrun: ranks of one case, with the catalogue and with the queries in parts.

    torchrun --nproc_per_node=3 tests/distributed/sharded_ranks.py CASE FOLDER

CASE holds users, items, histories, targets, since, now (torch.save). Each process writes FOLDER/RANK.pt: ranks by parts
of the catalogue, with and without filter, with what was there by then alone, and those of its share of the queries.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState

from mmrec.distributed import rank, world_size
from mmrec.retrieval import catalog_shard, rank_targets, rank_targets_sharded
from tests.test_retrieval import make_queries


def main(case: Path, folder: Path) -> None:
    state = PartialState(cpu=True)
    given = torch.load(case, weights_only=False)
    users, items = given["users"], given["items"]
    queries = make_queries(given["histories"], given["targets"])
    shard = items[catalog_shard(len(items))]
    found: dict[object, np.ndarray] = {
        filtered: rank_targets_sharded(users, shard, queries, num_items=len(items), filter_seen=filtered, block=500)
        for filtered in (True, False)
    }
    early = dataclasses.replace(queries, times=given["now"], available_from=given["since"])
    kept = dataclasses.replace(queries, filter_seen=False)
    found["early"], found["kept"] = (
        rank_targets_sharded(users, shard, asked, num_items=len(items), block=500) for asked in (early, kept)
    )
    rows = np.arange(rank(), len(queries), world_size())
    mine = rank_targets(users[rows], items, queries.take(rows), block=500)
    ranks = {"filtered": found[True], "all": found[False], "early": found["early"], "kept": found["kept"]}
    torch.save({**ranks, "rows": rows, "mine": mine}, folder / f"{rank()}.pt")
    state.wait_for_everyone()
    state.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
