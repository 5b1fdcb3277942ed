"""What reading a big log costs: a generated table becomes histories, in a process of its own.

    python -m eval.benchmarks.ingest_interactions --rows 10000000

Measured 2026-11-26, 2-core CPU that other work shared (load 4), 10,000,000 rows, 500,000 users, 200,000 items, string
ids: Parquet 8.7 s and .71 GB at the peak, CSV 12.2 s and .67 GB, of which .1 GB are the libraries; both write the same
135 MB. With ``--known 0.1``, where nine events in ten name an item that the catalogue lacks, 9.8 s and .73 GB.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from mmrec.data.histories import write_histories
from mmrec.data.interactions import EventFilters, build_histories
from mmrec.data.tables import read_interactions, scan_table

NUM_ITEMS, EVENTS_A_USER = 200_000, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="events of the table")
    parser.add_argument("--known", type=float, default=1.0, help="share of the items that the catalogue has")
    parser.add_argument("--table", type=Path, help=argparse.SUPPRESS)  # of the process that is measured
    arguments = parser.parse_args()
    if arguments.table is not None:
        print(json.dumps(_histories_of(arguments.table, arguments.known)))
        return
    with tempfile.TemporaryDirectory() as folder:
        table = _generate(arguments.rows)
        for name, write in (("log.parquet", table.write_parquet), ("log.csv", table.write_csv)):
            write(Path(folder) / name)
        del table
        for name in ("log.parquet", "log.csv"):
            command = [sys.executable, "-m", "eval.benchmarks.ingest_interactions", "--table", str(Path(folder) / name)]
            command += ["--known", str(arguments.known)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(
                f"{name}: {found['seconds']:.1f} s, {arguments.rows / found['seconds']:,.0f} rows/s, peak "
                f"{found['peak_bytes'] / 1e9:.2f} GB, {found['kept']:,} kept, "
                f"{found['bytes'] / found['kept']:.1f} bytes each on disk, sha256 {found['sha256'][:12]}"
            )


def _generate(rows: int) -> pl.DataFrame:
    draw = np.random.default_rng(0)
    users = pl.Series(draw.integers(0, max(rows // EVENTS_A_USER, 1), rows)).cast(pl.String)
    items = pl.Series(draw.integers(0, NUM_ITEMS, rows)).cast(pl.String)
    times = 1_500_000_000 + draw.integers(0, 10**8, rows)
    return pl.DataFrame({"user_id": "user-" + users, "item_id": "item-" + items, "timestamp": times})


def _histories_of(path: Path, known: float) -> dict[str, float | str]:
    started = time.perf_counter()
    item_ids = pl.Series([f"item-{n}" for n in range(round(known * NUM_ITEMS))])
    table = scan_table(path, ("user_id", "item_id"))
    histories = build_histories(
        read_interactions(table), item_ids, table.name, filters=EventFilters(), unknown_items="drop"
    )
    out = path.with_suffix(".arrow")
    write_histories(histories, out)
    return {
        "seconds": time.perf_counter() - started,
        "peak_bytes": _peak_bytes(),
        "kept": histories.num_events,
        "bytes": out.stat().st_size,
        "sha256": hashlib.sha256(out.read_bytes()).hexdigest(),
    }


def _peak_bytes() -> int:
    """Not getrusage, whose peak begins with that of the process that started this one."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(status["VmHWM"].split()[0])


if __name__ == "__main__":
    main()
