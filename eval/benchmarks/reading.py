"""Reading the media of a dataset folder: at random by offset, and for training, beside the `webdataset` package.

    python -m data_pipelines.movielens --source PACK --shard-size-mb 12 --out data/movielens_mm
    python -m eval.benchmarks.reading --data data/movielens_mm

- random reads: `Dataset.read` of small members (texts, pictures) in random order, hash checked, in one thread; and of
  one-member shards, 2,000 of them, of which the reader keeps 128 open, so that nearly each read opens a file
- pictures for training, all of the dataset once: `CatalogInputs.batch` (by offset, in random order, threads) against
  `webdataset` over the same shards (in order of storage, as many workers), both to uint8 RGB arrays; webdataset once
  with its own decoder (Pillow) and once with that of mmrec. Its workers are processes of a torch ``DataLoader``,
  started before the clock; arrays stay there, so that it does not pay for bringing them to the trainer

Every figure is the median of rounds in which all take turns; ratios are of medians, above 1 = by offset is faster.

Measured 2026-11-23 on a 2-core CPU that other work shared (load 6.6), posters of 128 x 192 px in 8 shards: texts
113,500 reads/s, posters (7 KB) 93,400, one-member shards 39,600; for training by offset 1,865 images/s, webdataset
1,344 with its own decoder, 1,340 with that of mmrec: by offset 1.39 times as fast.

Measured 2026-11-26 on a 2-core CPU that other work shared (load 13; --rounds 3 --reads 10000): texts 56,900 reads/s by
the clock and 253,500 a second of the processor, posters 42,700 and 195,000, one-member shards 14,100 and 69,500; for
training by offset 1,213 images/s, webdataset 634 and 531: by offset 1.91 and 2.29 times as fast.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from rich.console import Console
from rich.table import Table
from webdataset.autodecode import imagehandler
from webdataset.compat import WebDataset

from mmrec.data.dataset import Dataset
from mmrec.data.shard_reader import ShardReader
from mmrec.data.shards import Location, shard_name
from mmrec.item_inputs import CatalogInputs, ItemInputs
from mmrec.media.image import decode_image

CHUNK = 64
NUM_SHARDS = 2_000
SMALL_BYTES = 16_384


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="dataset folder with pictures")
    parser.add_argument("--reads", type=int, default=20_000, help="random reads a round")
    parser.add_argument("--workers", type=int, default=2, help="threads, or processes, that read and decode")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dataset = Dataset.open(arguments.data)
    with tempfile.TemporaryDirectory() as folder:
        table = _table("random reads, one thread, hash checked", "members", "median bytes", "reads/s", "CPU reads/s")
        runs = _random_reads(dataset, arguments.reads) | _many_shards(Path(folder), arguments.reads)
        measured = _in_turn({name: run for name, (_, run) in runs.items()}, arguments.rounds)
        for name, (size, _) in runs.items():
            rates = [f"{arguments.reads / seconds:,.0f}" for seconds in measured[name]]
            table.add_row(name, f"{size:,.0f}", *rates)
    console = Console()
    console.print(_hardware())
    console.print(table)
    places = np.stack(dataset.media_places("image"), axis=1)
    first = np.sort(np.unique(places, axis=0, return_index=True)[1])  # of equal pictures the shards hold one
    items = first[dataset.present("image")[first]]
    training = _training(dataset, items, arguments.workers)
    measured = _in_turn(training, arguments.rounds)
    ours = next(iter(measured.values()))[0]
    title = f"{len(items):,} pictures to RGB arrays, {arguments.workers} workers"
    table = _table(title, "read by", "images/s", "by offset is faster by")
    for name, (seconds, _) in measured.items():
        table.add_row(name, f"{len(items) / seconds:,.0f}", f"{seconds / ours:.2f}")
    console.print(table)


def _random_reads(dataset: Dataset, num_reads: int) -> dict[str, tuple[float, Callable[[], object]]]:
    """By modality of small members: their median size, and what reads them in random order."""
    runs = {}
    for modality in ("text", "image"):
        sizes = dataset.media_facts(modality, "size")
        small = np.flatnonzero(sizes <= SMALL_BYTES)  # not a number where there is none
        if len(small):
            order = np.random.default_rng(0).choice(small, num_reads)

            def run(modality: str = modality, order: np.ndarray = order) -> None:
                for item in order:
                    dataset.read(modality, item)

            runs[f"{modality}, {len(small):,} of {dataset.name}"] = float(np.median(sizes[small])), run
    return runs


def _many_shards(root: Path, num_reads: int) -> dict[str, tuple[float, Callable[[], object]]]:
    generator = np.random.default_rng(0)
    (root / "media").mkdir()
    locations = []
    for shard in range(NUM_SHARDS):
        data = generator.bytes(4096)
        info = tarfile.TarInfo(f"{shard:09d}.text.txt")
        info.size = len(data)
        (root / shard_name(shard)).write_bytes(info.tobuf() + data + bytes(1024))
        locations.append(Location(shard, 512, len(data), xxhash.xxh3_64_intdigest(data)))
    reader = ShardReader(root)
    order = [locations[place] for place in generator.choice(NUM_SHARDS, num_reads)]

    def run() -> None:
        for location in order:
            reader.read(location)

    return {f"one in each of {NUM_SHARDS:,} shards": (4096.0, run)}


class _Rgb:
    """A preprocessing that only decodes."""

    def __call__(self, raw: bytes) -> np.ndarray:
        return decode_image(raw)

    def collate(self, samples: list[np.ndarray]) -> dict[str, torch.Tensor]:
        return {"pixels": torch.tensor([len(sample) for sample in samples])}


def _training(dataset: Dataset, items: np.ndarray, workers: int) -> dict[str, Callable[[], object]]:
    preprocessing: Any = _Rgb()
    catalog = CatalogInputs(dataset, ItemInputs({"image": preprocessing}), cache_bytes=0, num_threads=workers)
    order = np.random.default_rng(0).permutation(items)

    def by_offset() -> None:
        done = sum(int(catalog.batch(order[s : s + CHUNK]).present.sum()) for s in range(0, len(order), CHUNK))
        assert done == len(items), f"{done} of {len(items)}"

    shards = sorted(str(path) for path in (dataset.path / "media").glob("*.tar"))
    if len(shards) < workers:
        raise SystemExit(
            f"{len(shards)} shards are too few for {workers} workers; ingest with a smaller --shard-size-mb"
        )

    def stream(own_decoder: bool) -> Callable[[], object]:
        source = WebDataset(shards, shardshuffle=False, select_files=lambda name: ".image." in name)
        if own_decoder:
            pictures = source.decode(imagehandler("rgb8"))
        else:
            pictures = source.map(lambda sample: {"image": decode_image(_picture(sample))})
        batches = pictures.map(lambda sample: len(_picture(sample))).batched(CHUNK, collation_fn=list)
        loader = torch.utils.data.DataLoader(
            batches,  # pyright: ignore[reportArgumentType]
            batch_size=None,
            num_workers=workers,
            persistent_workers=True,
            multiprocessing_context="fork",
        )

        def run() -> None:
            done = sum(len(batch) for batch in loader)
            assert done == len(items), f"{done} of {len(items)}"

        return run

    return {
        "offset: mmrec CatalogInputs": by_offset,
        "webdataset, its decoder": stream(True),
        "webdataset, mmrec's decoder": stream(False),
    }


def _picture(sample: dict[str, Any]) -> Any:
    return next(value for name, value in sample.items() if name.startswith("image"))


def _in_turn(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, tuple[float, float]]:
    """Median seconds of each by the clock, and of this process, over rounds in which all take turns."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            started, used = time.perf_counter(), time.process_time()
            run()
            if number:  # the first round opens files, starts workers
                taken[name].append((time.perf_counter() - started, time.process_time() - used))
    return {
        name: (statistics.median(clock for clock, _ in each), statistics.median(cpu for _, cpu in each))
        for name, each in taken.items()
    }


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == headings[0] else "right")
    return table


def _hardware() -> str:
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model n")]
        model = names[0] if names else model
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores, {model}, load {load:.1f} before, {datetime.date.today()}"


if __name__ == "__main__":
    main()
