"""Whatever a decoder does to the process of a build, it costs the medium that did it."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mmrec.data.dataset import Dataset
from mmrec.data.ingest import IngestConfig
from mmrec.data.units import Item, Unit, UnitSettings, build_unit
from mmrec.data.worker import Worker
from mmrec.errors import DataError
from mmrec.media.normalise import Normalisation
from tests.data.bad_decoders import CRASHES, HANGS, environment, write_pictures


def ingest_with(config: IngestConfig, variables: dict[str, str]) -> Dataset:
    """The dataset that a command with these variables of the environment makes."""
    command = [sys.executable, "-m", "mmrec", "ingest", "--items", str(config.items), "--name", "n"]
    command += ["--interactions", str(config.interactions), "--out", str(config.out), "--shard-size-mb", "1"]
    command += ["--medium-timeout-s", str(config.medium_timeout_s), "--num-workers", str(config.num_workers)]
    subprocess.run(command, env=os.environ | variables, check=True, capture_output=True, timeout=120)
    return Dataset.open(config.out)


def told_of_pictures(dataset: Dataset) -> dict[str, tuple[str, str]]:
    table = pl.read_parquet(dataset.path / "errors.parquet").filter(pl.col("modality") == "image")
    return {item: (error, message) for item, error, message in table.select("item_id", "error", "message").rows()}


@pytest.mark.slow
def test_a_decoder_that_hangs_and_one_that_crashes_cost_a_medium_each(tmp_path):
    sides = [40] * 12
    sides[3], sides[7] = HANGS, CRASHES
    config = write_pictures(tmp_path / "source", sides)
    dataset = ingest_with(config, environment(tmp_path / "decoders"))
    assert told_of_pictures(dataset) == {
        "i3": ("IsolationError", "media/3.png: took longer than 3 s"),
        "i7": ("IsolationError", "media/7.png: the decoder crashed (SIGSEGV)"),
    }
    present = dataset.present("image")
    assert {str(item) for item in dataset.item_ids[~present]} == {"i3", "i7"}
    for item in np.flatnonzero(present).tolist():
        path = tmp_path / "source" / "media" / f"{str(dataset.item_ids[item])[1:]}.png"
        assert dataset.read("image", item) == path.read_bytes()


def text_unit(folder: Path, num_items: int) -> tuple[Unit, UnitSettings]:
    folder.mkdir()
    items = [Item(f"i{n}", f"thing {n}", {}, 10) for n in range(num_items)]
    settings = UnitSettings(
        root=str(folder),
        folder=folder,
        rules=Normalisation(image_side_px=0, video_side_px=0, audio_rate_hz=0),
        shard_bytes=10**8,
        timeout_s=60.0,
        versions={},
    )
    return Unit("unit", 0, items), settings


def test_a_worker_gives_what_the_unit_gives_and_tells_of_each_item(tmp_path):
    unit, settings = text_unit(tmp_path / "here", 500)
    expected = build_unit(unit, settings)
    told: list[int] = []
    with Worker() as worker:
        unit, settings = text_unit(tmp_path / "there", 500)
        assert worker.do(unit, settings, told.append) == expected
        assert worker.do(unit, settings, told.append) == expected
    assert 0 <= sum(told) <= 1000
    assert min(told) >= 0
    assert (tmp_path / "here" / "unit-0.tar").read_bytes() == (tmp_path / "there" / "unit-0.tar").read_bytes()


def test_a_unit_that_ends_its_process_time_and_again_is_one_line_that_names_its_items(tmp_path):
    unit, settings = text_unit(tmp_path / "unit", 20_000)

    def kill_the_worker(_: int) -> None:
        for child in multiprocessing.active_children():
            child.kill()

    with Worker() as worker, pytest.raises(DataError, match="media of items 'i0' to 'i19999' dies or hangs") as caught:
        worker.do(unit, settings, kill_the_worker)
    assert "\n" not in str(caught.value)


def test_what_a_unit_raises_comes_through_and_the_worker_goes_on(tmp_path):
    unit, settings = text_unit(tmp_path / "unit", 10)
    with Worker() as worker:
        with pytest.raises(FileNotFoundError):
            worker.do(unit, replace(settings, folder=tmp_path / "nowhere"), lambda items: None)
        assert worker.do(unit, settings, lambda items: None).shards[0].num_items == 10


def test_an_interrupted_worker_ends_at_once(tmp_path):
    unit, settings = text_unit(tmp_path / "unit", 20_000)
    with Worker() as worker, pytest.raises(RuntimeError, match="interrupted"):
        worker.do(unit, settings, lambda items: worker.interrupt())
    assert not multiprocessing.active_children()


def test_a_worker_computes_in_one_thread():
    code = (
        "from mmrec.data.worker import _use_one_thread; _use_one_thread(); import torch; print(torch.get_num_threads())"
    )
    variables = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    run = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "1"
