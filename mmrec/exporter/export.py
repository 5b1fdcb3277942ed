"""Writes an export folder; its format stands in ``mmrec/exporter/__init__.py``."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmrec.atomic_files import commit, write_json, write_table
from mmrec.data.dataset import Dataset
from mmrec.errors import CheckpointError, ConfigError, DataError
from mmrec.export_folder import (
    MANIFEST,
    PARTIAL_MANIFEST,
    SCHEMA,
    SCHEMA_VERSION,
    ExportFolder,
    check_file,
    read_manifest,
)
from mmrec.exporter.item_table import item_table
from mmrec.exporter.use import UserSide, model_card
from mmrec.index.build import IndexConfig, finish_index

__all__ = ["ExportReport", "export"]

logger = logging.getLogger(__name__)

# Tolerance of "length 1": float32 leaves about 1e-7; half-precision towers are normalised in float32 too.
_UNIT_LENGTH_TOLERANCE = 1e-4
_MAX_MODALITIES = 31  # the bits of a non-negative int32


@dataclass(frozen=True)
class ExportReport:
    """What an export did: items encoded now, copied from ``since``, and found in parts that were there already."""

    path: Path
    num_items: int
    dim: int
    encoded: int
    copied: int
    already_there: int


def export(
    encode_items: Callable[[np.ndarray], np.ndarray],
    dataset: Dataset,
    out: Path,
    *,
    checkpoint: Path,
    model_hash: str,
    presence: np.ndarray,
    modalities: tuple[str, ...],
    user_side: UserSide | None = None,
    extras: Mapping[str, Callable[[Path], object]] | None = None,
    index: IndexConfig | None = None,
    since: Path | None = None,
    shard_items: int = 8192,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> ExportReport:
    """Write the vectors of all items of ``dataset`` to the export folder ``out``.

    An unfinished export of the same model and dataset goes on, also with ``overwrite``. A finished one is checked, and
    its damaged or missing files are restored.

    Args:
        encode_items: item indices (n,) -> vectors float32 (n, D); called once a part.
        checkpoint: folder whose inference part is copied to ``out/model``.
        model_hash: names the model; equal hashes mean equal vectors.
        presence: which modalities the model sees of each item. bool (V, M). ``encode_items`` may clear an entry when it
            finds a medium unreadable; the bitmask tells what went into the vector.
        modalities: names of the columns of ``presence``.
        user_side: what makes user vectors of these; None: the vectors are of items alone.
        extras: further files of ``out/model``, by their paths in it, and what writes each.
        index: also build an index; None keeps the one that there is.
        since: earlier export; vectors of items that have not changed since are copied from it bit for bit.
        shard_items: items a part.
        overwrite: replace a finished export, or one of another model or dataset.
        progress: called with the number of items done after each part.

    Raises:
        ConfigError: if ``shard_items`` is less than 1.
        DataError: if ``out`` holds something else, ``since`` cannot be read, or vectors are not finite or too few.
        CheckpointError: if ``checkpoint`` is none.
    """
    if shard_items < 1:
        raise ConfigError(f"shard_items is {shard_items}; it must be at least 1")
    if not (checkpoint / "config.json").is_file():
        raise CheckpointError(f"{checkpoint} is no checkpoint: config.json is missing")
    if since is not None and since.resolve() == out.resolve():
        raise DataError(f"--since and --out are the same folder {out}; export to a new one")
    _check_presence(presence, modalities, dataset.num_items)
    identity = _identity(dataset, model_hash, modalities, shard_items)
    previous = None if since is None else _Previous.open(since, model_hash)
    done = _start(out, identity, overwrite)
    writer = _Parts(encode_items, dataset, presence, previous)
    parts: list[dict[str, Any]] = []
    for number, start in enumerate(range(0, dataset.num_items, shard_items)):
        item_idx = np.arange(start, min(start + shard_items, dataset.num_items))
        name = f"embeddings/part-{number:05d}.parquet"
        if _intact(out, done.get(name)):
            parts.append(done[name])
        else:
            parts.append(writer.write(out, name, item_idx))
            write_json(out / PARTIAL_MANIFEST, identity | {"parts": parts})
        if progress:
            progress(len(item_idx))
    dim = _finish(out, identity, parts, dataset, checkpoint, user_side, extras or {}, index)
    encoded, copied = writer.encoded, writer.copied
    logger.info(
        "%s: %s items encoded, %s copied, %s already there", out, encoded, copied, dataset.num_items - encoded - copied
    )
    return ExportReport(out, dataset.num_items, dim, encoded, copied, dataset.num_items - encoded - copied)


def _identity(dataset: Dataset, model_hash: str, modalities: tuple[str, ...], shard_items: int) -> dict[str, Any]:
    """All that must be equal for the parts of an earlier run to be parts of this one."""
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "model_hash": model_hash,
        "dataset": {"name": dataset.name, "fingerprint": dataset.fingerprint},
        "num_items": dataset.num_items,
        "shard_items": shard_items,
        "modalities": list(modalities),
    }


def _start(out: Path, identity: dict[str, Any], overwrite: bool) -> dict[str, dict[str, Any]]:
    """Make ``out`` ready and return its entries of parts that belong to this export, by file."""
    found = _ledger(out)
    if found is None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise DataError(f"{out} exists and is no export; choose another --out")
    elif _same(found, identity) and not (overwrite and (out / MANIFEST).is_file()):
        return {part["file"]: part for part in found["parts"]}
    elif overwrite:
        shutil.rmtree(out)
    else:
        raise DataError(
            f"{out} holds {_what(found)}, this is {_what(identity)}; choose another --out, or --overwrite replaces it"
        )
    (out / "embeddings").mkdir(parents=True, exist_ok=True)
    write_json(out / PARTIAL_MANIFEST, identity | {"parts": []})
    return {}


def _ledger(out: Path) -> dict[str, Any] | None:
    for name in (PARTIAL_MANIFEST, MANIFEST):
        if (out / name).is_file():
            try:
                ledger = json.loads((out / name).read_text(encoding="utf-8"))
            except ValueError as error:
                raise DataError(f"{out / name} is damaged ({error}); remove {out} or choose another --out") from error
            return ledger if isinstance(ledger, dict) and ledger.get("schema") == SCHEMA else None
    return None


def _same(ledger: dict[str, Any], identity: dict[str, Any]) -> bool:
    return all(ledger.get(key) == value for key, value in identity.items())


def _what(ledger: dict[str, Any]) -> str:
    if ledger.get("schema_version") != SCHEMA_VERSION:
        return f"version {ledger.get('schema_version')} of the export format"
    data = ledger["dataset"]
    return (
        f"model {ledger['model_hash'][:12]} on dataset {data['name']!r} ({data['fingerprint'][:12]}) "
        f"in parts of {ledger['shard_items']:,}"
    )


def _intact(out: Path, entry: dict[str, Any] | None) -> bool:
    if entry is None:
        return False
    try:
        check_file(out, entry["file"], entry, content=True)
    except DataError as error:
        logger.warning("%s", str(error).partition(";")[0] + "; encoding it again")
        return False
    return True


def _check_presence(presence: np.ndarray, modalities: tuple[str, ...], num_items: int) -> None:
    if len(modalities) > _MAX_MODALITIES:
        raise DataError(f"the model has {len(modalities)} modalities; an export takes at most {_MAX_MODALITIES}")
    assert presence.shape == (num_items, len(modalities)), "presence has a row an item and a column a modality"


class _Previous:
    """Vectors of an earlier export that may be copied: same model, same content."""

    def __init__(self, export: ExportFolder):
        table = export.table
        keys = zip(*(table[name].to_pylist() for name in ("item_id", "source_hash", "modalities")), strict=True)
        self._row_of = {key: row for row, key in enumerate(keys)}
        self._vectors = export.vectors

    @classmethod
    def open(cls, since: Path, model_hash: str) -> _Previous | None:
        export = ExportFolder.open(since)
        if export.manifest["model_hash"] != model_hash:
            logger.warning(
                "%s is of model %s, this is model %s: all items are encoded again",
                since,
                export.manifest["model_hash"][:12],
                model_hash[:12],
            )
            return None
        return cls(export)

    def vector(self, item_id: str, source_hash: str, bitmask: int) -> np.ndarray | None:
        row = self._row_of.get((item_id, source_hash, bitmask))
        return None if row is None else self._vectors[row]


class _Parts:
    """Encodes or copies the vectors of one part after the other, and writes them."""

    def __init__(
        self,
        encode_items: Callable[[np.ndarray], np.ndarray],
        dataset: Dataset,
        presence: np.ndarray,
        previous: _Previous | None,
    ):
        self._encode_items = encode_items
        self._dataset = dataset
        self._presence = presence
        self._previous = previous
        self.encoded = 0
        self.copied = 0

    def write(self, out: Path, name: str, item_idx: np.ndarray) -> dict[str, Any]:
        """Commit one part; return its entry of the manifest."""
        item_ids = [str(item_id) for item_id in self._dataset.item_ids[item_idx]]
        hashes = [self._dataset.source_hash(int(idx)) for idx in item_idx]
        vectors = self._vectors(item_idx, item_ids, hashes)  # (n, D)
        element = pa.field("element", pa.float32(), nullable=False)
        columns: list[tuple[pa.Field, pa.Array]] = [
            (pa.field("item_id", pa.string(), nullable=False), pa.array(item_ids, pa.string())),
            (
                # pyarrow cannot read a nullable fixed-size list back
                pa.field("vector", pa.list_(element, vectors.shape[1]), nullable=False),
                pa.FixedSizeListArray.from_arrays(
                    pa.array(vectors.reshape(-1)), type=pa.list_(element, vectors.shape[1])
                ),
            ),
            (pa.field("modalities", pa.int32(), nullable=False), pa.array(self._bitmask(item_idx), pa.int32())),
            (pa.field("source_hash", pa.string(), nullable=False), pa.array(hashes, pa.string())),
        ]
        table = pa.Table.from_arrays([array for _, array in columns], schema=pa.schema([field for field, _ in columns]))
        entry = write_table(out / name, table)
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
        normalised = bool((np.abs(lengths - 1) <= _UNIT_LENGTH_TOLERANCE).all())
        return {"file": name, "rows": len(item_idx), **entry, "normalised": normalised}

    def _vectors(self, item_idx: np.ndarray, item_ids: list[str], hashes: list[str]) -> np.ndarray:
        known: list[np.ndarray | None] = [None] * len(item_idx)
        if self._previous is not None:
            keys = zip(item_ids, hashes, self._bitmask(item_idx).tolist(), strict=True)
            known = [self._previous.vector(*key) for key in keys]
        changed = np.array([vector is None for vector in known])
        copied = [vector for vector in known if vector is not None]
        self.copied += len(copied)
        if not changed.any():
            return np.stack(copied)
        encoded = self._encode(item_idx[changed], [item_ids[n] for n in np.flatnonzero(changed)])
        vectors = np.empty((len(item_idx), encoded.shape[1]), dtype=np.float32)
        vectors[changed] = encoded
        if copied:
            vectors[~changed] = np.stack(copied)
        return vectors

    def _bitmask(self, item_idx: np.ndarray) -> np.ndarray:
        """Bit m is set where the item has modality m. int32 (n,)"""
        present = self._presence[item_idx].astype(np.int32)  # (n, M)
        return (present << np.arange(present.shape[1], dtype=np.int32)).sum(axis=1, dtype=np.int32)

    def _encode(self, item_idx: np.ndarray, item_ids: list[str]) -> np.ndarray:
        vectors = np.asarray(self._encode_items(item_idx), dtype=np.float32)
        if vectors.ndim != 2 or len(vectors) != len(item_idx):
            raise DataError(
                f"the model gave vectors of shape {vectors.shape} for {len(item_idx):,} items; "
                "an export needs one vector an item"
            )
        broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(broken):
            raise DataError(
                f"the model gives NaN or infinite vectors for {len(broken):,} of {len(item_idx):,} items, for example "
                f"{item_ids[broken[0]]!r}; its training went wrong: export another checkpoint"
            )
        self.encoded += len(item_idx)
        return vectors


def _finish(
    out: Path,
    identity: dict[str, Any],
    parts: list[dict[str, Any]],
    dataset: Dataset,
    checkpoint: Path,
    user_side: UserSide | None,
    extras: Mapping[str, Callable[[Path], object]],
    index: IndexConfig | None,
) -> int:
    """Write all but the parts, the manifest last; return the width of the vectors."""
    bitmasks = pa.concat_tables([pq.read_table(out / part["file"], columns=["modalities"]) for part in parts])
    items = item_table(dataset, bitmasks["modalities"])
    files = {"items.parquet": write_table(out / "items.parquet", items)} | _copy_model(checkpoint, out)
    for extra, write in extras.items():
        name = f"model/{extra}"
        files[name] = commit(out / name, write)
    dim = pq.read_schema(out / parts[0]["file"]).field("vector").type.list_size
    manifest = identity | {
        "dim": dim,
        "dtype": "float32",
        "decode": "the vectors as the model scores them",
        "normalised": all(part["normalised"] for part in parts),
        "metric": "inner_product",
        "user_side": None if user_side is None else user_side.to_json(),
        "parts": parts,
        "files": files,
    }
    card = model_card(manifest, dataset)
    files["README.md"] = commit(out / "README.md", lambda path: path.write_text(card, encoding="utf-8"))
    before = read_manifest(out) if (out / MANIFEST).is_file() else None
    finish_index(ExportFolder(out, manifest), before, index)
    write_json(out / MANIFEST, manifest)
    (out / PARTIAL_MANIFEST).unlink(missing_ok=True)
    return dim


def _copy_model(checkpoint: Path, out: Path) -> dict[str, dict[str, Any]]:
    files = {}
    for path in sorted(checkpoint.rglob("*")):
        relative = path.relative_to(checkpoint)
        if path.is_file() and relative.parts[0] != "training_state":
            name = f"model/{relative.as_posix()}"
            files[name] = commit(out / name, lambda temporary, path=path: shutil.copyfile(path, temporary))
    return files
