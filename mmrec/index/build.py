"""An index of an export: which kind, with which settings, and how much of the exact answer it finds.

Legend: V items of the export, D vector width.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from mmrec.atomic_files import commit, write_json, write_table
from mmrec.errors import ConfigError, DataError
from mmrec.export_folder import MANIFEST, ExportFolder, check_file
from mmrec.index.opened import INDEX_FILES, import_faiss, index_in_memory, vectors_digest
from mmrec.index.removed import carry_removed, live_items
from mmrec.index.tuning import RECALL_AT, Measured, draw_sample, tune

__all__ = ["Built", "IndexConfig", "build_index", "choose", "finish_index", "rebuild", "replace_index", "tune_index"]

logger = logging.getLogger(__name__)

Kind = Literal["auto", "exact", "ivf", "hnsw", "sq8"]

# Numbers up to which an exact index is the default: 200 MB, some 200,000 items of width 256.
EXACT_VALUES = 50_000_000
_SAMPLE_PER_LIST = 40  # vectors of the k-means sample for each list
_HNSW_LINKS, _HNSW_CONSTRUCTION = 32, 80


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """What is asked of an index.

    Attributes:
        kind: exact; ivf (lists around k-means centres); hnsw (graph); sq8 (8 bits a number in memory, scores from the
            vectors on disk); auto: by size, recall and memory.
        recall: share of the exact answer's ten first that it finds; above 0, at most 1.
        memory_gb: most that the index may take in memory, 10^9 bytes; None: no bound.
        seed: of the k-means sample and of the queries that are tried.
    """

    kind: Kind = "auto"
    recall: float = 0.98
    memory_gb: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.recall <= 1:
            raise ConfigError(f"recall is {self.recall:g}; it must be above 0 and at most 1")
        if self.memory_gb is not None and not self.memory_gb > 0:
            raise ConfigError(f"memory-gb is {self.memory_gb:g}; it must be above 0")


@dataclass(frozen=True)
class Plan:
    """A kind of index for one export: number of lists, 0 for none, and what it takes in memory."""

    kind: str
    nlist: int
    memory_bytes: int


def choose(num_items: int, dim: int, config: IndexConfig) -> Plan:
    """The kind of index for this size.

    Raises:
        ConfigError: if the kind does not fit into the memory, or auto finds none that does.
    """
    lists = min(2 ** round(np.log2(2 * np.sqrt(num_items))), max(num_items // _SAMPLE_PER_LIST, 1))
    small = num_items * dim <= EXACT_VALUES
    in_lists = 16  # bytes of an item's number, and of its place for reading its vector
    links = 2 * 4 * _HNSW_LINKS + 4 * _HNSW_LINKS // 8  # on the lowest level, and about an eighth above
    plans = {
        "exact": Plan("exact", 0, 4 * dim * num_items),
        "ivf": Plan("ivf", lists, (4 * dim + in_lists) * num_items + 4 * dim * lists),
        "hnsw": Plan("hnsw", 0, (4 * dim + links) * num_items),
        "sq8": Plan("sq8", 0, dim * num_items)
        if small
        else Plan("sq8", lists, (dim + in_lists) * num_items + 4 * dim * lists),
    }
    best = "exact" if small or config.recall == 1 else "ivf"
    # No graph unless it is asked for: lists were built 3 to 7 times as fast, searched 2 to 3 times as fast at the same
    # recall (eval/benchmarks/index_search.py), and take less memory.
    order = (best, "sq8") if config.kind == "auto" else (config.kind,)
    bound = np.inf if config.memory_gb is None else 1e9 * config.memory_gb
    for kind in order:
        if plans[kind].memory_bytes <= bound:
            return plans[kind]
    needed = plans[order[-1]].memory_bytes / 1e9
    least = " and takes least" if config.kind == "auto" else ""
    raise ConfigError(
        f"an index of kind {order[-1]} of {num_items:,} items x {dim} needs {needed:.3g} GB{least}; "
        f"memory-gb is {config.memory_gb:g}"
    )


@dataclass(frozen=True)
class Built:
    """An index in memory, tuned and measured: :func:`write_index` makes it that of its export.

    Attributes:
        row_of: row of each position, -1 where the item is no more. (P,)
        measured: None: it is exact.
        files: entries of files that are written already.
    """

    kind: str
    index: Any
    parameters: dict[str, int]
    row_of: np.ndarray
    config: IndexConfig
    measured: Measured | None
    files: dict[str, dict[str, Any]]


def build_index(export: ExportFolder, config: IndexConfig) -> Built:
    """Fill and tune an index of all vectors.

    Raises:
        ConfigError: if nothing fits the memory, or the kind that was asked for does not reach the recall.
    """
    plan = choose(export.num_items, export.dim, config)
    logger.info("index: %s of %s items x %s", plan.kind, f"{export.num_items:,}", export.dim)
    index, parameters = _fill(export, plan, config.seed)
    return tune_index(export, plan.kind, index, parameters, np.arange(export.num_items, dtype=np.int32), config)


def tune_index(
    export: ExportFolder, kind: str, index: Any, parameters: dict[str, int], row_of: np.ndarray, config: IndexConfig
) -> Built:
    """Tune and measure a FAISS index that is filled.

    Args:
        row_of: row of each position, -1 where the item is no more. (P,)

    Raises:
        ConfigError: if it does not reach the recall.
    """
    # The same bytes as those of an index of this kind before it, if there was one: nothing sees the change.
    files = {"index_vectors.npy": _write_vectors(export)} if kind == "sq8" else {}
    measured = None
    if kind != "exact":
        opened = index_in_memory(export, kind, index, parameters, row_of)
        live = live_items(export)
        restriction = None if live is None else opened.restrict(live, exhaustive=False)
        sample = draw_sample(export, opened, live, config.seed)
        measured = tune(opened, sample, config.recall, restriction)
        _check_recall(measured, kind, config)
        parameters = opened.parameters
    return Built(kind, index, parameters, row_of, config, measured, files)


def write_index(export: ExportFolder, built: Built) -> None:
    """Write the files of an index, and its entries into the manifest in memory; the caller writes that."""
    faiss = import_faiss()
    path = export.path / "index.faiss"
    ids = export.id_column.take(pa.array(built.row_of, pa.int32(), mask=built.row_of < 0))
    table = pa.table({"item_id": ids, "row": pa.array(built.row_of, pa.int32())})
    files = built.files | {
        path.name: commit(path, lambda temporary: faiss.write_index(built.index, str(temporary))),
        "index_ids.parquet": write_table(export.path / "index_ids.parquet", table),
    }
    export.manifest["files"] |= files
    export.manifest["index"] = {
        "kind": built.kind,
        "asked": asdict(built.config),
        "parameters": built.parameters,
        "positions": len(built.row_of),
        "vectors": vectors_digest(export),
        "recall": _recall_entry(built.measured, built.config),
        "memory_bytes": files[path.name]["bytes"],
        "queries_per_second": None if built.measured is None else round(built.measured.queries_per_second),
        "threads": None if built.measured is None else faiss.omp_get_max_threads(),
    }


def finish_index(export: ExportFolder, before: dict[str, Any] | None, config: IndexConfig | None) -> None:
    """Give a finished export its index and its removed items, in its manifest in memory.

    Args:
        before: the manifest that the folder had; what it says of the index and of removed items is kept where it still
            holds.
        config: None: an index only if there was one.
    """
    if before is not None:
        carry_removed(export, before)
    entry = None if before is None else before.get("index")
    if entry is None and config is None:
        return
    config = config or IndexConfig(**entry["asked"])  # pyright: ignore[reportOptionalSubscript]
    if before is not None and entry is not None and _still_holds(export, before, entry, config):
        export.manifest["index"] = entry
        export.manifest["files"] |= {name: before["files"][name] for name in INDEX_FILES if name in before["files"]}
    else:
        write_index(export, build_index(export, config))


def rebuild(path: Path, config: IndexConfig) -> ExportFolder:
    """Build the index of the export folder ``path`` again; return the folder, opened."""
    export = ExportFolder.open(path)
    replace_index(export, build_index(export, config))
    return ExportFolder.open(path)


def replace_index(export: ExportFolder, built: Built) -> None:
    """Make ``built`` the index of a finished export, on disk too; whoever opens it meanwhile finds none."""
    if export.manifest.pop("index", None) is not None:
        for name in INDEX_FILES:
            export.manifest["files"].pop(name, None)
        write_json(export.path / MANIFEST, export.manifest)
    write_index(export, built)
    write_json(export.path / MANIFEST, export.manifest)
    for name in INDEX_FILES:
        if name not in export.manifest["files"]:
            (export.path / name).unlink(missing_ok=True)


def _still_holds(export: ExportFolder, before: dict[str, Any], entry: dict[str, Any], config: IndexConfig) -> bool:
    if entry["asked"] != asdict(config) or entry["vectors"] != vectors_digest(export):
        return False
    try:
        for name in INDEX_FILES:
            if name in before["files"]:
                check_file(export.path, name, before["files"][name], content=True)
    except DataError as error:
        logger.warning("%s", str(error).partition(";")[0] + "; indexing again")
        return False
    return True


def _check_recall(measured: Measured, kind: str, config: IndexConfig) -> None:
    if measured.recall < config.recall:
        raise ConfigError(
            f"an index of kind {kind} finds {measured.recall:.4f} of the exact answer here at the most, "
            f"recall asks for {config.recall:g}; ask for less, or for kind ivf or exact"
        )


def _recall_entry(measured: Measured | None, config: IndexConfig) -> dict[str, Any]:
    if measured is None:
        return {"at": RECALL_AT, "target": config.recall, "measured": 1.0, "standard_error": 0.0, "queries": 0}
    return {
        "at": RECALL_AT,
        "target": config.recall,
        "measured": round(measured.recall, 6),
        "standard_error": round(measured.standard_error, 6),
        "queries": measured.queries,
    }


def _fill(export: ExportFolder, plan: Plan, seed: int) -> tuple[Any, dict[str, int]]:
    """A FAISS index of all vectors, and its parameters before tuning."""
    faiss = import_faiss()
    metric, dim = faiss.METRIC_INNER_PRODUCT, export.dim
    if plan.kind == "hnsw":
        index = faiss.IndexHNSWFlat(dim, _HNSW_LINKS, metric)
        index.hnsw.efConstruction = _HNSW_CONSTRUCTION
        parameters = {"links": _HNSW_LINKS, "ef_construction": _HNSW_CONSTRUCTION, "ef_search": _HNSW_LINKS}
    elif plan.nlist:
        index = faiss.index_factory(dim, f"IVF{plan.nlist},{'SQ8' if plan.kind == 'sq8' else 'Flat'}", metric)
        index.cp.seed = seed + 1
        index.cp.min_points_per_centroid = 1  # no warning on standard error for an export that is small
        parameters = {"nlist": plan.nlist, "nprobe": 1}
    elif plan.kind == "sq8":
        index, parameters = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_8bit, metric), {}
    else:
        index, parameters = faiss.IndexFlatIP(dim), {}
    if not index.is_trained:
        index.train(_training_sample(export, max(_SAMPLE_PER_LIST * plan.nlist, 10_000), seed))
    for block in export.vector_blocks():
        index.add(block)
    return index, parameters


def _training_sample(export: ExportFolder, num: int, seed: int) -> np.ndarray:
    chosen = np.zeros(export.num_items, dtype=bool)
    chosen[np.random.default_rng(seed).choice(export.num_items, min(num, export.num_items), replace=False)] = True
    start, taken = 0, []
    for block in export.vector_blocks():
        taken.append(block[chosen[start : start + len(block)]])
        start += len(block)
    return np.concatenate(taken)


def _write_vectors(export: ExportFolder) -> dict[str, Any]:
    """All vectors as one ``.npy`` file, part by part; return its entry."""

    def write(path: Path) -> None:
        with path.open("wb") as file:
            shape = (export.num_items, export.dim)
            np.lib.format.write_array_header_2_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
            for block in export.vector_blocks():
                file.write(np.ascontiguousarray(block, dtype="<f4").data)

    return commit(export.path / "index_vectors.npy", write)
