"""What an export costs beside the bare loop that reads vectors, runs the model and writes Parquet.

    OMP_NUM_THREADS=1 python -m eval.benchmarks.exporting --items 100000 --threads 1
    OMP_NUM_THREADS=1 python -m eval.benchmarks.exporting --items 1000000 --threads 1 --fusion mean --repeats 1

Generated items with ready-made vectors of d 256, an untrained model of width 256, each measured in a process of its
own, alternating. The bare loop does nothing else: no hashes of content and files, no titles, no model folder, no flush
to the disk.

Measured 2026-11-26, 2-core CPU, one thread:

- 100,000 items, attention, a test suite beside it: 2.03 s of CPU bare and 2.42 s exported, so .84 of the bare loop; .81
  by the clock; best of three.
- 1,000,000 items, mean of one token, the cheapest model there is, on a crowded machine: 9.6 s and 12.8 s of CPU, .75;
  .90 by the clock; one run of each. The export's peak is 1.59 GB of memory, the bare loop's 2.35 GB: what it has mapped
  of the vectors stays.

Of several modalities the export also computes their shares in each vector, which costs about half of what attention
does once more.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from mmrec.fusion import FUSIONS

WIDTH = 256
PART = 8192
CHUNK = 512
EVENTS = 2_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, of which the quickest counts")
    parser.add_argument("--folder", type=Path, help="where the data are made, and kept; the default is removed")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--fusion", choices=FUSIONS, default="attention")
    parser.add_argument("--only", choices=RUNS, help=argparse.SUPPRESS)  # of the process that is measured
    arguments = parser.parse_args()
    if arguments.only is not None:
        print(json.dumps(_measured(arguments.only, arguments.folder, arguments.threads, arguments.dtype)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        if not (folder / "checkpoint").is_dir():
            _generate(folder, arguments.items, arguments.fusion)
        found: dict[str, list[dict[str, float]]] = {name: [] for name in RUNS}
        for _ in range(arguments.repeats):
            for name in RUNS:
                command = [sys.executable, "-m", "eval.benchmarks.exporting", "--only", name, "--folder", str(folder)]
                command += ["--threads", str(arguments.threads), "--dtype", arguments.dtype]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found[name].append(json.loads(done.stdout.splitlines()[-1]))
                print(f"{name:8s}" + "  ".join(f"{what} {value:,.2f}" for what, value in found[name][-1].items()))
    for what in ("cpu_s", "wall_s"):
        best = {name: min(run[what] for run in found[name]) for name in RUNS}
        rates = ", ".join(f"{name} {arguments.items / seconds:,.0f} items/s" for name, seconds in best.items())
        print(f"{what}: {rates}; the export does {best['bare'] / best['export']:.2f} of the bare loop")


def _generate(folder: Path, num_items: int, fusion: str) -> None:
    """A dataset of random vectors, and a checkpoint of an untrained model that reads them."""
    from mmrec.config import to_dict
    from mmrec.data.dataset import Dataset
    from mmrec.data.ingest import IngestConfig, ingest
    from mmrec.item_encoder import ItemEncoderConfig, fit_preprocessings
    from mmrec.modality_encoders import FeaturesConfig
    from mmrec.model import ModelConfig, model_writers
    from mmrec.training.checkpoint import dataset_record

    draw = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    ids = [f"item-{number:08d}" for number in range(num_items)]
    titles = [f"Title of item {number}" for number in range(num_items)]
    pl.DataFrame({"item_id": ids, "title": titles}).write_parquet(folder / "items.parquet")
    events = {"user_id": [f"u{n % 100}" for n in range(EVENTS)], "item_id": ids[:EVENTS], "timestamp": range(EVENTS)}
    pl.DataFrame(events).write_parquet(folder / "log.parquet")
    vectors = np.lib.format.open_memmap(folder / "vec.npy", mode="w+", dtype=np.float32, shape=(num_items, WIDTH))
    for start in range(0, num_items, PART):
        vectors[start : start + PART] = draw.standard_normal((min(PART, num_items - start), WIDTH), dtype=np.float32)
    vectors.flush()
    config = IngestConfig(
        items=folder / "items.parquet",
        interactions=folder / "log.parquet",
        features=(f"vec={folder / 'vec.npy'}",),
        out=folder / "dataset",
        num_workers=1,
    )
    dataset = Dataset.open(ingest(config))
    train_items = np.zeros(num_items, dtype=bool)
    train_items[:10_000] = True
    encoder = ItemEncoderConfig(dim=WIDTH, encoders={"vec": FeaturesConfig()}, fusion=FUSIONS[fusion]())
    model_config = ModelConfig(item_encoder=encoder)
    model = model_config.build(fit_preprocessings(model_config.item_encoder, dataset, train_items))
    scratch = folder / "checkpoint.tmp"
    scratch.mkdir(exist_ok=True)
    stored = {"model": to_dict(model_config)}
    for name, write in model_writers(model, model.state_dict(), stored).items():
        write(scratch / name)
    (scratch / "dataset.json").write_text(json.dumps(dataset_record(dataset)))
    (scratch / "files.json").write_text("{}")
    scratch.rename(folder / "checkpoint")


def _measured(name: str, folder: Path, threads: int, dtype: str) -> dict[str, float]:
    import torch

    torch.set_num_threads(threads)
    out = Path(tempfile.mkdtemp(dir=folder)) / "out"
    try:
        cpu_s, wall_s = RUNS[name](folder, out, dtype)
    finally:
        subprocess.run(["rm", "-rf", str(out.parent)], check=True)
    return {"cpu_s": cpu_s, "wall_s": wall_s, "peak_gb": _peak_bytes() / 1e9}


def _export(folder: Path, out: Path, dtype: str) -> tuple[float, float]:
    from mmrec.training.exporting import ExportJob

    job = ExportJob(checkpoint=folder / "checkpoint", data=folder / "dataset", out=out, dtype=dtype)
    source = job.open()
    started, clock = time.process_time(), time.perf_counter()
    job.begin(source).run()
    return time.process_time() - started, time.perf_counter() - clock


def _bare(folder: Path, out: Path, dtype: str) -> tuple[float, float]:
    """Read, forward, write: float32, whatever the export writes."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch
    import torch.nn.functional as F

    from mmrec.data.dataset import Dataset
    from mmrec.item_inputs import ItemInputs
    from mmrec.model import load_model

    dataset, model = Dataset.open(folder / "dataset"), load_model(folder / "checkpoint")
    preprocessing = model.inputs.preprocessings["vec"]
    vectors, ids = dataset.features("vec"), dataset.attributes["item_id"]
    out.mkdir()
    started, clock = time.process_time(), time.perf_counter()
    for start in range(0, dataset.num_items, PART):
        found = []
        for first in range(start, min(start + PART, dataset.num_items), CHUNK):
            block = preprocessing(np.array(vectors[first : min(first + CHUNK, start + PART)]))
            present = np.ones((len(block), 1), dtype=bool)
            batch = ItemInputs.batch(model.inputs, np.arange(first, first + len(block)), present, {"vec": block})
            with torch.inference_mode():
                found.append(F.normalize(model.item_encoder(batch), dim=-1).numpy())
        values = pa.array(np.concatenate(found).reshape(-1))
        columns = {
            "item_id": ids[start : start + PART].to_arrow(),
            "vector": pa.FixedSizeListArray.from_arrays(values, WIDTH),
        }
        pq.write_table(pa.table(columns), out / f"{start:08d}.parquet", compression="none", use_dictionary=False)
    return time.process_time() - started, time.perf_counter() - clock


def _peak_bytes() -> int:
    """Not getrusage, whose peak begins with that of the process that started this one."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(status["VmHWM"].split()[0])


RUNS = {"bare": _bare, "export": _export}

if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
