"""The command `export`: a checkpoint -> a folder of item embeddings."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import tyro

from mmrec.errors import ConfigError

__all__ = ["export"]

Positional = tyro.conf.Positional


def export(
    checkpoint: Positional[Path],
    data: Path,
    out: Path,
    index: bool = False,
    recall: float | None = None,
    dtype: Literal["float32", "float16", "int8", "binary"] = "float32",
    format: Literal["parquet", "npy", "safetensors", "lance"] = "parquet",  # noqa: A002 - the option's name
    dim: int | None = None,
    users: bool = False,
    since: Path | None = None,
    blend: bool = False,
    executor: Literal["local", "ray"] = "local",
    num_workers: int | None = None,
    overwrite: bool = False,
) -> None:
    """Write the item embeddings of a checkpoint as a folder that searches, recommends and evaluates on its own.

    An interrupted export goes on with the same command; the same command given several times, on machines that share
    OUT or by a launcher (accelerate launch -m mmrec export ...), shares the work.

    Args:
        checkpoint: run folder (its best checkpoint) or checkpoint folder.
        data: the dataset that it was trained on.
        out: export folder, or a URL that fsspec knows, written when the export is finished.
        index: also build an index (`mmrec index` has more settings).
        recall: with --index: share of the exact answer that it is to find, by default .98.
        dtype: number format of the vectors. int8 has a scale for each vector, binary is the signs; what they cost is
            measured (recall_at_10 in the manifest).
        format: file format of the parts. All but parquet have the vectors in files of their own kind.
        dim: first dimensions of the vectors that are exported, a width of --model.matryoshka; the default is all.
        users: also write vectors of the dataset's users, after all of their events.
        since: earlier export of the same model, also a URL; items that have not changed are copied from it.
        blend: also export what sequential rules (item-kNN for sets) add to the scores, for recommend and evaluate.
        executor: local (this process), or ray: tasks of the cluster of RAY_ADDRESS, whose machines share all folders.
        num_workers: ray only: tasks at once, by default as many as the cluster has CPUs, and as many waiting.
        overwrite: replace an export of another model or dataset at OUT.
    """
    from mmrec.index.build import IndexConfig
    from mmrec.training.exporting import ExportJob, run_job

    if recall is not None and not index:
        raise ConfigError("--recall is of an index; give --index too")
    indexed = None if not index else IndexConfig() if recall is None else IndexConfig(recall=recall)
    if num_workers is not None and (executor == "local" or num_workers < 1):
        raise ConfigError("--num-workers is of --executor ray, at least 1; here start the command several times")
    job = ExportJob(
        checkpoint=checkpoint, data=data, out=out, dim=dim, dtype=dtype, form=format, users=users, index=indexed,
        since=since, blend=blend, overwrite=overwrite,
    )  # fmt: skip
    report = run_job(job, executor=executor, num_workers=num_workers, progress=_progress)
    if os.environ.get("RANK", "0") == "0":
        changes = f", {report.encoded:,} encoded, {report.copied:,} copied, {report.gone:,} gone" if since else ""
        print(f"exported: {out}  ({report.num_items:,} items x {report.dim}{changes})")


@contextlib.contextmanager
def _progress(num_items: int) -> Iterator[Callable[[int], None]]:
    """A bar with rate and time left, of the first process of a launcher; yields the function that moves it."""
    from mmrec.training.telemetry import progress_bar

    progress, bar = progress_bar(os.environ.get("RANK", "0") == "0")
    with progress:
        bar.start("encoding items", num_items)
        yield lambda done: bar.advance(steps=done)
