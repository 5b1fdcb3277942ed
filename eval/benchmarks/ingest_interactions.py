"""What reading a big log costs: a generated table becomes histories, in a process of its own.

    python -m eval.benchmarks.ingest_interactions --rows 10000000

Measured 2026-11-23, 2-core CPU shared with other work, 10,000,000 rows, 500,000 users, 200,000 items, string ids:
Parquet 21 to 27 s and 1.2 GB at the peak, CSV 14 to 24 s and 1.2 GB; before ids were read as codes, 37 s and 2.39 GB,
CSV 296 s and 2.40 GB. Both write the same 135 MB.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from mmrec.data.interactions import EventFilters, build_histories, write_histories
from mmrec.data.tables import read_interactions

NUM_ITEMS, EVENTS_A_USER = 200_000, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="events of the table")
    parser.add_argument("--table", type=Path, help=argparse.SUPPRESS)  # of the process that is measured
    arguments = parser.parse_args()
    if arguments.table is not None:
        print(json.dumps(_histories_of(arguments.table)))
        return
    with tempfile.TemporaryDirectory() as folder:
        table = _generate(arguments.rows)
        for name, write in (("log.parquet", table.write_parquet), ("log.csv", table.write_csv)):
            write(Path(folder) / name)
        del table
        for name in ("log.parquet", "log.csv"):
            command = [sys.executable, "-m", "eval.benchmarks.ingest_interactions", "--table", str(Path(folder) / name)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(
                f"{name}: {found['seconds']:.1f} s, {arguments.rows / found['seconds']:,.0f} rows/s, peak "
                f"{found['peak_bytes'] / 1e9:.2f} GB, {found['bytes'] / arguments.rows:.1f} bytes an event on disk, "
                f"sha256 {found['sha256'][:12]}"
            )


def _generate(rows: int) -> pl.DataFrame:
    draw = np.random.default_rng(0)
    users = pl.Series(draw.integers(0, max(rows // EVENTS_A_USER, 1), rows)).cast(pl.String)
    items = pl.Series(draw.integers(0, NUM_ITEMS, rows)).cast(pl.String)
    times = 1_500_000_000 + draw.integers(0, 10**8, rows)
    return pl.DataFrame({"user_id": "user-" + users, "item_id": "item-" + items, "timestamp": times})


def _histories_of(path: Path) -> dict[str, float | str]:
    started = time.perf_counter()
    item_ids = pl.Series([f"item-{n}" for n in range(NUM_ITEMS)])
    histories = build_histories(read_interactions(path), item_ids, path, filters=EventFilters(), unknown_items="error")
    out = path.with_suffix(".arrow")
    write_histories(histories, out)
    return {
        "seconds": time.perf_counter() - started,
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "bytes": out.stat().st_size,
        "sha256": hashlib.sha256(out.read_bytes()).hexdigest(),
    }


if __name__ == "__main__":
    main()
