"""The command `export`: a checkpoint -> a folder of item embeddings."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import tyro

__all__ = ["export"]

Positional = tyro.conf.Positional


def export(
    checkpoint: Positional[Path],
    data: Path,
    out: Path,
    index: bool = False,
    dtype: Literal["float32", "float16", "int8", "binary"] = "float32",
    format: Literal["parquet", "npy", "safetensors", "lance"] = "parquet",  # noqa: A002 - the option's name
    dim: int | None = None,
    since: Path | None = None,
    blend: bool = False,
    overwrite: bool = False,
) -> None:
    """Write the item embeddings of a checkpoint as a folder that searches, recommends and evaluates on its own.

    An interrupted export goes on with the same command; the same command given several times, on machines that share
    OUT or by a launcher (accelerate launch -m mmrec export ...), shares the work.

    Args:
        checkpoint: run folder (its best checkpoint) or checkpoint folder.
        data: the dataset that it was trained on.
        out: export folder.
        index: also write a FAISS index.
        dtype: number format of the vectors. int8 has a scale for each vector, binary is the signs; what they cost is
            measured (recall_at_10 in the manifest).
        format: file format of the parts. All but parquet have the vectors in files of their own kind.
        dim: first dimensions of the vectors that are exported, a width of --model.matryoshka; the default is all.
        since: earlier export of the same model; items that have not changed are copied from it.
        blend: also export what sequential rules (item-kNN for sets) add to the scores, for recommend and evaluate.
        overwrite: replace an export of another model or dataset at OUT.
    """
    from mmrec.exporter import export as write_export
    from mmrec.training.exporting import CheckpointSource

    source = CheckpointSource(checkpoint, data, dim)
    with _progress("encoding items", source.dataset.num_items) as advance:
        report = write_export(
            source.encode_items,
            source.dataset,
            out,
            checkpoint=source.folder,
            model_hash=source.model_hash,
            presence=source.presence,
            modalities=source.modalities,
            user_side=source.user_side,
            cut=source.cut,
            dtype=dtype,
            form=format,
            extras=lambda: source.extras(data, blend=blend),
            index=index,
            since=since,
            overwrite=overwrite,
            progress=advance,
        )
    source.warn_of_gaps()
    if os.environ.get("RANK", "0") == "0":
        changes = f", {report.encoded:,} encoded, {report.copied:,} copied, {report.gone:,} gone" if since else ""
        print(f"exported: {out}  ({report.num_items:,} items x {report.dim}{changes})")


@contextlib.contextmanager
def _progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar with rate and time left, of the first process of a launcher; yields the function that moves it."""
    from mmrec.training.telemetry import progress_bar

    progress, bar = progress_bar(os.environ.get("RANK", "0") == "0")
    with progress:
        bar.start(title, total)
        yield lambda done: bar.advance(steps=done)
