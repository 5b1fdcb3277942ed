"""The files of a part: Parquet with everything in it, or another format's own file of vectors beside ids.

Each format writes a table with the columns item_id, vector, scale (int8 only), modalities, shares and source_hash, and
reads it back; the same table gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmrec.atomic_files import write_parquet
from mmrec.errors import ConfigError, unknown_name
from mmrec.export_folder.encodings import Encoding

__all__ = ["FORMATS", "Format", "format_of", "numbers_of", "vector_array"]


@dataclass(frozen=True)
class Format:
    """How the table of a part lies on the disk.

    Attributes:
        name: format in the manifest.
        table_file, vector_file: names of its files, ``{}`` the number of the part; no vector file where the table has
            the vectors.
        write_table, read_table: the table, of which the vector column is left out where it has a file of its own; of
            which only the given columns are read, or all.
        write_vectors, read_vectors: the stored numbers. (n, W)
        finish: called with the folder ``embeddings`` and the number of rows of each part when all are there.
    """

    name: str
    table_file: str
    write_table: Callable[[Path, pa.Table], object]
    read_table: Callable[[Path, list[str] | None], pa.Table]
    vector_file: str | None = None
    write_vectors: Callable[[Path, np.ndarray], object] | None = None
    read_vectors: Callable[[Path], np.ndarray] | None = None
    finish: Callable[[Path, Sequence[int]], object] | None = None


def format_of(name: str) -> Format:
    """Raises: ConfigError if there is no such format, or its library is not installed."""
    if name not in FORMATS:
        raise ConfigError(unknown_name("format", name, FORMATS))
    if name == "lance":
        _lance()
    return FORMATS[name]


def vector_array(codes: np.ndarray, name: str = "vector") -> tuple[pa.Field, pa.Array]:
    """Stored numbers (n, W) as a column of lists of W numbers."""
    element = pa.field("element", pa.from_numpy_dtype(codes.dtype), nullable=False)
    kind = pa.list_(element, codes.shape[1])
    # pyarrow cannot read a nullable fixed-size list back
    return (
        pa.field(name, kind, nullable=False),
        pa.FixedSizeListArray.from_arrays(pa.array(codes.reshape(-1)), type=kind),
    )


def numbers_of(column: pa.ChunkedArray, encoding: Encoding) -> np.ndarray:
    """Stored numbers of a column of vectors. (n, W)

    Raises: ValueError if the column is none of vectors in this encoding.
    """
    parts = [chunk.flatten().to_numpy() for chunk in column.chunks]
    numbers = np.concatenate(parts) if len(parts) != 1 else parts[0]
    if numbers.dtype != encoding.stored:
        raise ValueError(f"vectors of {numbers.dtype}, not of {np.dtype(encoding.stored)}")
    return numbers.reshape(len(column), -1)


def _read_parquet(path: Path, columns: list[str] | None) -> pa.Table:
    return pq.ParquetFile(path).read(columns=columns)


def _write_npy(path: Path, codes: np.ndarray) -> None:
    with path.open("wb") as file:  # np.save appends .npy to the name of a path
        np.save(file, codes, allow_pickle=False)


def _read_npy(path: Path) -> np.ndarray:
    return np.load(path, allow_pickle=False)


def _write_safetensors(path: Path, codes: np.ndarray) -> None:
    from safetensors.numpy import save

    path.write_bytes(save({"vectors": codes}))


def _read_safetensors(path: Path) -> np.ndarray:
    from safetensors.numpy import load_file

    return load_file(path)["vectors"]


def _lance() -> Any:
    try:
        import lance
    except ImportError as error:
        raise ConfigError("the format lance needs pylance: pip install 'mmrec[lance]'") from error
    return lance


def _write_lance(path: Path, table: pa.Table) -> None:
    _lance()
    from lance.file import LanceFileWriter

    with LanceFileWriter(str(path), table.schema) as writer:
        writer.write_batch(table)


def _read_lance(path: Path, columns: list[str] | None) -> pa.Table:
    _lance()
    from lance.file import LanceFileReader

    return LanceFileReader(str(path), columns=columns).read_all().to_table()


def _finish_lance(folder: Path, rows: Sequence[int]) -> None:
    """Let the parts be a Lance dataset; its ``_versions`` and ``_transactions`` name the time, so nobody lists them."""
    lance = _lance()
    from lance.file import LanceFileReader
    from lance.fragment import DataFile, FragmentMetadata

    fragments, schema = [], None
    for number, count in enumerate(rows):
        name = f"part-{number:05d}.lance"
        path = folder / "data" / name
        about: Any = LanceFileReader(str(path)).metadata()  # whose versions its stubs leave out
        schema = about.schema
        columns = list(range(len(schema)))
        size = path.stat().st_size
        file = DataFile(name, columns, columns, about.major_version, about.minor_version, size)
        fragments.append(FragmentMetadata(id=number, files=[file], physical_rows=count))
    if _lance_parts(folder) != [json.loads(json.dumps(fragment.to_json())) for fragment in fragments]:
        lance.LanceDataset.commit(str(folder), lance.LanceOperation.Overwrite(schema, fragments))


def _lance_parts(folder: Path) -> list[Any]:
    """Parts of the dataset that is there already; none if there is none."""
    if not (folder / "_versions").is_dir():
        return []
    dataset = _lance().dataset(str(folder))
    return [json.loads(json.dumps(fragment.metadata.to_json())) for fragment in dataset.get_fragments()]


_BESIDE = "embeddings/part-{:05d}.parquet"
FORMATS = {
    "parquet": Format("parquet", _BESIDE, write_parquet, _read_parquet),
    "npy": Format(
        "npy", _BESIDE, write_parquet, _read_parquet, "embeddings/part-{:05d}.npy", _write_npy, _read_npy
    ),
    "safetensors": Format(
        "safetensors", _BESIDE, write_parquet, _read_parquet, "embeddings/part-{:05d}.safetensors",
        _write_safetensors, _read_safetensors,
    ),
    "lance": Format("lance", "embeddings/data/part-{:05d}.lance", _write_lance, _read_lance, finish=_finish_lance),
}  # fmt: skip
