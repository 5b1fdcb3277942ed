"""Number formats and file formats: each combination gives back what went in, in the same bytes each time."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmrec.errors import ConfigError, DataError
from mmrec.export_folder import ENCODINGS, FORMATS, ExportFolder, encoding_of
from mmrec.exporter.recall import recall_at_10, sample_rows
from tests.exporting.test_exporter import contents, damage

DTYPES, FORMS = sorted(ENCODINGS), sorted(FORMATS)
VECTORS = arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 20)), elements=st.floats(-4, 4, width=32))


def slow_decode(name: str, vector: np.ndarray) -> np.ndarray:
    """What a vector becomes when it is stored and decoded, in float64, as the docstrings say it."""
    exact = vector.astype(np.float64)
    if name == "binary":
        return np.where(exact > 0, 1.0, -1.0) / np.sqrt(len(exact))
    if name == "int8":
        largest = np.abs(exact).max()
        codes = np.round(exact / largest * 127) if largest else exact
        return codes * (np.linalg.norm(exact) / np.linalg.norm(codes) if largest else 0.0)
    return np.array([float(np.float16(value) if name == "float16" else value) for value in vector])


@pytest.mark.parametrize("name", DTYPES)
@given(vectors=VECTORS)
@settings(max_examples=50, deadline=None)
def test_decoding_gives_what_the_format_says(name, vectors):
    encoding = ENCODINGS[name]
    codes, scale = encoding.encode(vectors)
    assert codes.dtype == encoding.stored
    assert codes.shape == (len(vectors), encoding.width(vectors.shape[1]))
    assert (scale is not None) == encoding.has_scale
    decoded = encoding.decode(codes, scale, vectors.shape[1])
    assert decoded.dtype == np.float32
    for row, vector in zip(decoded, vectors, strict=True):
        reference = slow_decode(name, vector)
        step = np.abs(vector).max() / 127 if name == "int8" else 0.0  # halves may be rounded either way
        np.testing.assert_allclose(row, reference, rtol=1e-6, atol=1e-6 + step)


@pytest.mark.parametrize("name", DTYPES)
def test_a_vector_is_stored_alike_whatever_is_stored_beside_it(name):
    vectors = np.random.default_rng(0).standard_normal((7, 33)).astype(np.float32)
    codes, scale = ENCODINGS[name].encode(vectors)
    for row in range(7):
        alone, alone_scale = ENCODINGS[name].encode(vectors[row : row + 1])
        assert np.array_equal(alone[0], codes[row])
        assert scale is None or alone_scale[0] == scale[row]


def test_int8_keeps_lengths_and_zero():
    vectors = np.random.default_rng(1).standard_normal((50, 64)).astype(np.float32)
    vectors[3] = 0
    encoding = ENCODINGS["int8"]
    decoded = encoding.decode(*encoding.encode(vectors), 64)
    np.testing.assert_allclose(np.linalg.norm(decoded, axis=1), np.linalg.norm(vectors, axis=1), rtol=1e-6)
    assert not decoded[3].any()


def test_values_that_half_precision_cannot_hold_are_refused():
    with pytest.raises(DataError, match="past 65,504 do not fit float16; export them as float32"):
        ENCODINGS["float16"].encode(np.full((1, 2), 1e5, dtype=np.float32))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_format_gives_back_every_dtype_and_the_same_bytes_each_time(run_export, encoder, tmp_path, form, dtype):
    if form == "lance":
        pytest.importorskip("lance", reason="pylance is not installed (extra `lance`)")
    vectors = encoder()(np.arange(24))
    expected = ENCODINGS[dtype].decode(*ENCODINGS[dtype].encode(vectors), 6)
    for name in ("one", "two"):
        run_export(encoder(), tmp_path / name, dtype=dtype, form=form)
    export = ExportFolder.open(tmp_path / "one", verify=True)
    assert np.array_equal(export.vectors, expected)
    assert export.encoding.name == dtype
    assert (export.manifest["dtype"], export.manifest["format"]) == (dtype, form)
    parquet = ExportFolder.open(run_export(encoder(), tmp_path / "parquet", dtype=dtype).path)
    for column in export.table.column_names:
        assert export.table[column].to_pylist() == parquet.table[column].to_pylist()
    first, second = (contents(tmp_path / name) for name in ("one", "two"))
    timed = ("embeddings/_versions/", "embeddings/_transactions/")  # in which Lance notes the time
    assert {name: data for name, data in first.items() if not name.startswith(timed)} == {
        name: data for name, data in second.items() if not name.startswith(timed)
    }


def test_npy_and_safetensors_are_files_that_numpy_and_torch_open(run_export, encoder, tmp_path):
    from safetensors.numpy import load_file

    expected = encoder()(np.arange(7))
    run_export(encoder(), tmp_path / "npy", form="npy")
    assert np.array_equal(np.load(tmp_path / "npy/embeddings/part-00000.npy"), expected)
    run_export(encoder(), tmp_path / "safetensors", form="safetensors")
    tensors = load_file(tmp_path / "safetensors/embeddings/part-00000.safetensors")
    assert np.array_equal(tensors["vectors"], expected)
    ids = pq.read_table(tmp_path / "npy/embeddings/part-00000.parquet")
    assert ids.column_names == ["item_id", "modalities", "source_hash"]


def test_the_parts_are_one_lance_dataset_also_after_the_export_was_looked_through(run_export, encoder, tmp_path):
    lance = pytest.importorskip("lance", reason="pylance is not installed (extra `lance`)")
    run_export(encoder(), tmp_path / "out", form="lance")
    run_export(encoder(), tmp_path / "out", form="lance")
    dataset = lance.dataset(str(tmp_path / "out" / "embeddings"))
    table = dataset.to_table()
    assert dataset.version == 1
    assert table.column_names == ["item_id", "vector", "modalities", "source_hash"]
    vectors = table["vector"].combine_chunks().flatten().to_numpy().reshape(24, 6)
    assert np.array_equal(vectors, encoder()(np.arange(24)))


def test_binary_is_one_bit_a_dimension(run_export, encoder, tmp_path):
    run_export(encoder(), tmp_path / "out", dtype="binary")
    table = pq.read_table(tmp_path / "out" / "embeddings" / "part-00000.parquet")
    assert table.schema.field("vector").type == pa.list_(pa.field("element", pa.uint8(), nullable=False), 1)
    first = encoder()(np.array([0]))[0]
    assert table["vector"][0].as_py() == [int("".join("1" if value > 0 else "0" for value in first) + "00", 2)]


@pytest.mark.parametrize("dtype", ["float16", "int8", "binary"])
def test_recall_is_measured_and_stored(run_export, encoder, tmp_path, dtype):
    run_export(encoder(), tmp_path / "out", dtype=dtype)
    export = ExportFolder.open(tmp_path / "out")
    exact, stored = encoder()(np.arange(24)), export.vectors
    kept = 0
    for query in range(24):
        others = [item for item in range(24) if item != query]
        best = [sorted(others, key=lambda item: -float(exact[query] @ items[item]))[:10] for items in (exact, stored)]
        kept += len(set(best[0]) & set(best[1]))
    recall = export.manifest["recall_at_10"]
    assert (recall["queries"], recall["among"]) == (24, 24)
    assert recall["value"] == pytest.approx(kept / 240, abs=0.01 if dtype == "binary" else 1e-6)  # ties
    assert ExportFolder.open(run_export(encoder(), tmp_path / "whole").path).manifest["recall_at_10"] is None
    run_export(encoder(), tmp_path / "out", dtype=dtype)
    assert ExportFolder.open(tmp_path / "out").manifest["recall_at_10"] == recall, "kept when the export is checked"


def test_recall_of_what_is_equal_is_one_and_of_one_item_is_none():
    vectors = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
    assert recall_at_10(vectors, vectors) == {"value": 1.0, "queries": 40, "among": 40}
    assert recall_at_10(vectors[:1], vectors[:1]) is None
    assert recall_at_10(vectors, -vectors)["value"] < 0.5


def test_the_sample_is_spread_over_all_items():
    assert sample_rows(5).tolist() == [0, 1, 2, 3, 4]
    rows = sample_rows(1_000_000)
    assert (len(rows), rows[0], rows[-1]) == (16_384, 0, 999_999)


def test_normalised_is_told_of_the_decoded_vectors(run_export, encoder, tmp_path):
    for dtype, doubled, expected in (("int8", False, True), ("int8", True, False), ("binary", True, True)):
        out = tmp_path / f"{dtype}-{doubled}"
        run_export(lambda item_idx, by=1 + doubled: by * encoder()(item_idx), out, dtype=dtype)
        assert ExportFolder.open(out).manifest["normalised"] is expected


def test_unknown_formats_are_refused_with_the_nearest(run_export, encoder, tmp_path):
    with pytest.raises(ConfigError, match="unknown dtype 'int4'; perhaps you meant 'int8'; known: binary, float16"):
        run_export(encoder(), tmp_path / "out", dtype="int4")
    with pytest.raises(ConfigError, match="unknown format 'parqet'; perhaps you meant 'parquet'"):
        run_export(encoder(), tmp_path / "out", form="parqet")
    assert not (tmp_path / "out").exists()
    assert encoding_of("float32").stored is np.float32


def test_without_pylance_the_format_lance_is_refused_in_one_line(run_export, encoder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lance", None)
    with pytest.raises(ConfigError, match=r"needs pylance: pip install 'mmrec\[lance\]'$"):
        run_export(encoder(), tmp_path / "out", form="lance")


def test_another_dtype_is_another_export(run_export, encoder, tmp_path):
    run_export(encoder(), tmp_path / "out")
    with pytest.raises(DataError, match=r"as float32 in parquet parts of 7, this is .* as int8 in npy parts of 7"):
        run_export(encoder(), tmp_path / "out", dtype="int8", form="npy")


@pytest.mark.parametrize("form", ["npy", "safetensors", "lance"])
def test_a_damaged_file_of_vectors_is_named_and_restored(run_export, encoder, tmp_path, form):
    if form == "lance":
        pytest.importorskip("lance", reason="pylance is not installed (extra `lance`)")
    run_export(encoder(), tmp_path / "out", form=form)
    before = contents(tmp_path / "out")
    part = ExportFolder.open(tmp_path / "out").manifest["parts"][1]
    name = part.get("vectors", part)["file"]
    damage(tmp_path / "out" / name)
    with pytest.raises(DataError, match=f"{name} is damaged: its sha256"):
        _ = ExportFolder.open(tmp_path / "out").vectors
    again = encoder()
    run_export(again, tmp_path / "out", form=form)
    assert again.calls == [list(range(7, 14))]
    assert contents(tmp_path / "out") == before


def test_parts_that_are_not_what_the_manifest_says_are_refused(run_export, encoder, tmp_path):
    path = run_export(encoder(), tmp_path / "out").path
    manifest = json.loads((path / "manifest.json").read_text())
    for changes, words in (
        ({"dtype": "float16"}, "cannot be read as parquet .vectors of float32, not of float16"),
        ({"dim": 5}, "cannot be read as parquet .vectors of fixed_size_list"),
        ({"format": "lance"}, "cannot be read as lance"),
    ):
        Path(path / "manifest.json").write_text(json.dumps(manifest | changes))
        with pytest.raises(DataError, match=words):
            _ = ExportFolder.open(path).vectors
