"""What ingesting a log needs of memory: so many bytes an event, whatever becomes of the events."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.data.test_units import peak_mb

ROWS = 3_000_000
# The table as it is read has 16 bytes an event: codes of user and item, and the time.
MOST_BYTES_AN_EVENT = 60


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three million events of 150,000 users and 20,000 items."""
    draw = np.random.default_rng(0)
    users, items = (pl.Series(draw.integers(0, number, ROWS)).cast(pl.String) for number in (150_000, 20_000))
    times = 1_500_000_000 + draw.integers(0, 10**8, ROWS)
    path = tmp_path_factory.mktemp("log") / "log.parquet"
    pl.DataFrame({"user_id": "user-" + users, "item_id": "item-" + items, "timestamp": times}).write_parquet(path)
    return path


@pytest.mark.parametrize(("known", "kept"), [(20_000, 1.0), (2_000, 0.1)])
def test_an_event_takes_few_bytes_whether_it_is_kept_or_left_out(log, tmp_path, known, kept):
    ids = [f"item-{n}" for n in range(known)]
    pl.DataFrame({"item_id": ids, "text": ids}).write_csv(tmp_path / "items.csv")
    code = """
import json, pathlib, sys
from mmrec.data.ingest import IngestConfig, ingest
log, folder = map(pathlib.Path, sys.argv[1:])
out = ingest(IngestConfig(interactions=log, items=folder / "items.csv", out=folder / "out", unknown_items="drop",
                          num_workers=1))
"""
    assert peak_mb(code, str(log), str(tmp_path)) * 2**20 < ROWS * MOST_BYTES_AN_EVENT + 130e6
    counts = pl.read_json((tmp_path / "out" / "manifest.json").read_bytes())["interactions"][0]
    assert counts["given"] == ROWS
    assert counts["kept"] == pytest.approx(kept * ROWS, rel=0.01)
    errors = pl.read_parquet(tmp_path / "out" / "errors.parquet")
    left_out = counts["left_out"].get("UnknownItem") or 0
    assert left_out == pytest.approx((1 - kept) * ROWS, rel=0.01)
    if left_out:
        unknown = errors.filter(pl.col("error") == "UnknownItem")
        assert unknown.height == 10_001
        assert unknown["message"][-1] == (
            f"{left_out - 10_000:,} more of this kind: an event with an item that is not in the item table"
        )
