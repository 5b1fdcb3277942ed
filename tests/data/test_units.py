"""Units of work: shards of bounded size whatever becomes of media, and memory that does not grow with files."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from mmrec.data.dataset import Dataset, verify_dataset
from mmrec.data.ingest import IngestConfig, ingest
from mmrec.data.shard_writer import ShardWriter
from tests.conftest import mp3_bytes


def test_no_shard_is_larger_than_asked_for_however_media_grow(tmp_path):
    (tmp_path / "media").mkdir()
    for n in range(12):
        (tmp_path / "media" / f"{n}.mp3").write_bytes(mp3_bytes(n, duration_s=3.0))
    assert sum(path.stat().st_size for path in (tmp_path / "media").iterdir()) < 1_000_000, "one unit"
    rows = {"item_id": [f"i{n}" for n in range(12)], "text": "noise", "audio": [f"media/{n}.mp3" for n in range(12)]}
    pl.DataFrame(rows).write_csv(tmp_path / "items.csv")
    (tmp_path / "events.csv").write_text("user_id,item_id,timestamp\nu,i0,1\n")
    config = IngestConfig(items=tmp_path / "items.csv", interactions=tmp_path / "events.csv", out=tmp_path / "out")
    config = replace(config, shard_size_mb=1, audio_rate_hz=44_100)
    dataset = Dataset.open(ingest(config))
    sizes = [path.stat().st_size for path in sorted((dataset.path / "media").iterdir())]
    assert len(sizes) == 3
    assert max(sizes) <= 1_000_000
    assert verify_dataset(dataset.path) == []
    assert dataset.present("audio").all()
    assert dataset.present("text").all()
    own = dataset.attributes.filter(pl.col("text.shard") != pl.col("audio.shard"))
    assert own.is_empty(), "what an item has stands together"


@pytest.mark.parametrize("max_bytes", [10_240, 20_480, 30_720])
def test_a_tar_is_filled_as_far_as_it_goes(tmp_path, max_bytes):
    with ShardWriter(tmp_path, "unit", max_bytes) as writer:
        places = [writer.add([(f"{n:09d}.text.txt", bytes(1000))])[0] for n in range(40)]
    sizes = [(tmp_path / shard.name).stat().st_size for shard in writer.shards]
    assert sizes == [shard.bytes for shard in writer.shards]
    assert max(sizes) <= max_bytes
    per_shard = (max_bytes - 1024) // 1536  # a header and two blocks for each, two empty blocks at the end
    assert [place.shard for place in places] == [n // per_shard for n in range(40)]
    assert sum(shard.num_items for shard in writer.shards) == 40


def test_one_item_larger_than_a_shard_has_a_shard_of_its_own(tmp_path):
    with ShardWriter(tmp_path, "unit", 10_240) as writer:
        for n, size in enumerate((100, 50_000, 100)):
            writer.add([(f"{n:09d}.text.txt", bytes(size))])
    assert [shard.num_items for shard in writer.shards] == [1, 1, 1]


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    def write() -> None:
        with ShardWriter(tmp_path, "unit", 10_240) as writer:
            writer.add([("000000000.text.txt", bytes(9000))])
            writer.add([("000000001.text.txt", bytes(9000))])
            raise KeyError

    with pytest.raises(KeyError):
        write()
    assert list(tmp_path.iterdir()) == []


def peak_mb(code: str, *arguments: str) -> float:
    """Peak memory of a process that runs ``code``, less that of one that only imports what it imports."""
    # Not getrusage, whose peak begins with that of the process that started this one.
    measure = "\nprint(*(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    imports = "".join(line + "\n" for line in code.splitlines() if line.startswith(("import", "from")))
    peaks = []
    for text in (imports, code):
        command = [sys.executable, "-c", text + measure, *arguments]
        run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
        peaks.append(float(run.stdout.split()[-1]) / 1024)
    return peaks[1] - peaks[0]


def sparse(path: Path, num_mb: int) -> None:
    with path.open("wb") as file:
        file.write(b"no picture")
        file.truncate(num_mb << 20)


def test_large_files_are_compared_a_block_at_a_time(tmp_path):
    for name in ("a", "b", "c", "d"):
        sparse(tmp_path / name, 400)
    code = """
import sys
import polars as pl
from mmrec.data.build_plan import make_plan
from mmrec.media.source import MediaSource
items = pl.DataFrame({"item_id": ["a", "b", "c", "d"], "image": ["a", "b", "c", "d"]})
plan = make_plan(items, MediaSource(sys.argv[1]), [], {"image": "image"}, former=None, shard_bytes=10**9, first_key=0,
                 ground="", num_threads=8)
assert plan.owner["image"].tolist() == [0, 0, 0, 0]
"""
    assert peak_mb(code, str(tmp_path)) < 150


def test_threads_read_so_far_ahead_as_memory_allows(tmp_path):
    for n in range(12):
        sparse(tmp_path / str(n), 100)
    (tmp_path / "units").mkdir()
    code = """
import pathlib, sys
from mmrec.data.units import Item, Unit, UnitSettings, build_unit
from mmrec.media.normalise import Normalisation
root = pathlib.Path(sys.argv[1])
settings = UnitSettings(root=str(root), folder=root / "units", shard_bytes=10**9, timeout_s=60.0, versions={},
                        rules=Normalisation(image_side_px=64, video_side_px=0, audio_rate_hz=0), num_threads=12)
items = [Item(f"i{n}", "", {"image": str(n)}, 100 << 20) for n in range(12)]
assert len(build_unit(Unit("unit", 0, items), settings).faults) == 12
"""
    assert peak_mb(code, str(tmp_path)) < 500  # two files of 100 MB, and what decoders make of them
