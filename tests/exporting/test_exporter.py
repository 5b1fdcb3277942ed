"""Export: complete, exact, resumable, refreshable, and refused with one line where it would mislead."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from mmrec.config import to_dict
from mmrec.data.dataset import Dataset
from mmrec.data.ingest import IngestConfig, ingest
from mmrec.errors import CheckpointError, ConfigError, DataError
from mmrec.export_folder import ExportFolder
from mmrec.exporter import export


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def test_an_export_holds_every_item_once_in_order_with_its_exact_vector(run_export, encoder, tiny_dataset, tmp_path):
    report = run_export(encoder(), tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "embeddings")
    assert table["item_id"].to_pylist() == tiny_dataset.item_ids.tolist()
    expected = encoder()(np.arange(tiny_dataset.num_items))
    assert np.array_equal(np.array(table["vector"].to_pylist(), dtype=np.float32), expected)
    assert table["source_hash"].to_pylist() == [tiny_dataset.source_hash(n) for n in range(tiny_dataset.num_items)]
    assert (report.num_items, report.dim, report.encoded, report.copied) == (24, 6, 24, 0)


def test_bit_m_of_the_bitmask_says_whether_the_item_has_modality_m(run_export, encoder, tiny_dataset, tmp_path):
    run_export(encoder(), tmp_path / "out")
    export = ExportFolder.open(tmp_path / "out")
    assert export.manifest["modalities"] == list(tiny_dataset.modalities)
    bitmask = export.table["modalities"].to_numpy()
    for bit, name in enumerate(tiny_dataset.modalities):
        assert np.array_equal(bitmask >> bit & 1, tiny_dataset.present(name).astype(int))


def test_the_bitmask_leaves_out_a_medium_that_proved_unreadable(run_export, encoder, tiny_dataset, tmp_path):
    presence = np.ones((24, len(tiny_dataset.modalities)), dtype=bool)

    def discovering(item_idx: np.ndarray) -> np.ndarray:
        presence[item_idx[item_idx == 9], 1] = False
        return encoder()(item_idx)

    run_export(discovering, tmp_path / "out", presence=presence)
    bitmask = ExportFolder.open(tmp_path / "out").table["modalities"].to_numpy()
    whole = 2 ** presence.shape[1] - 1
    assert bitmask.tolist() == [whole - 2 if idx == 9 else whole for idx in range(24)]


def test_other_readers_of_parquet_read_the_parts(run_export, encoder, tiny_dataset, tmp_path):
    run_export(encoder(), tmp_path / "out")
    table = pl.read_parquet(tmp_path / "out" / "embeddings" / "*.parquet")
    assert table["vector"].dtype == pl.Array(pl.Float32, 6)
    assert np.array_equal(table["vector"].to_numpy(), encoder()(np.arange(tiny_dataset.num_items)))
    assert not any(field.nullable for field in pq.read_schema(tmp_path / "out/embeddings/part-00000.parquet"))


def test_an_export_names_model_and_dataset_and_carries_the_inference_part_of_the_checkpoint(
    run_export, encoder, tiny_dataset, tmp_path
):
    run_export(encoder(), tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["model_hash"] == "a" * 64
    assert manifest["dataset"] == {"name": "tiny", "fingerprint": tiny_dataset.fingerprint}
    assert (manifest["num_items"], manifest["dim"], manifest["dtype"]) == (24, 6, "float32")
    assert [part["rows"] for part in manifest["parts"]] == [7, 7, 7, 3]
    model = {name for name in contents(tmp_path / "out") if name.startswith("model/")}
    assert model == {
        "model/model.safetensors",
        "model/config.json",
        "model/dataset.json",
        "model/preprocessing/text/tokenizer.json",
    }


def test_normalised_is_what_the_vectors_are(run_export, encoder, tmp_path):
    run_export(encoder(), tmp_path / "unit")
    run_export(lambda item_idx: 2 * encoder()(item_idx), tmp_path / "long")
    assert ExportFolder.open(tmp_path / "unit").manifest["normalised"] is True
    assert ExportFolder.open(tmp_path / "long").manifest["normalised"] is False


@pytest.mark.parametrize("fail_at", [0, 1, 3])
def test_an_interrupted_export_goes_on_and_ends_with_the_bytes_of_an_uninterrupted_one(
    run_export, encoder, tmp_path, fail_at
):
    run_export(encoder(), tmp_path / "whole", index=True)
    with pytest.raises(KeyboardInterrupt):
        run_export(encoder(fail_at=fail_at), tmp_path / "out", index=True)
    with pytest.raises(DataError, match="unfinished export; run the same"):
        ExportFolder.open(tmp_path / "out")
    second = encoder()
    report = run_export(second, tmp_path / "out", index=True)
    assert len(second.calls) == 4 - fail_at
    assert report.already_there == 7 * fail_at
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_an_interrupted_export_encodes_a_part_again_that_was_damaged_meanwhile(run_export, encoder, tmp_path, caplog):
    run_export(encoder(), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run_export(encoder(fail_at=2), tmp_path / "out")
    damage(tmp_path / "out" / "embeddings" / "part-00000.parquet")
    second = encoder()
    run_export(second, tmp_path / "out")
    assert sorted(calls[0] for calls in second.calls) == [0, 14, 21]
    assert "part-00000.parquet is damaged" in caplog.text
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_finished_export_is_kept_and_gains_an_index_without_encoding(run_export, encoder, tmp_path):
    run_export(encoder(), tmp_path / "whole", index=True)
    run_export(encoder(), tmp_path / "out")
    again = encoder()
    run_export(again, tmp_path / "out", index=True)
    assert again.calls == []
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    run_export(again, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole"), "asking for no index does not remove it"


def test_overwrite_encodes_a_finished_export_anew_and_goes_on_with_an_unfinished_one(run_export, encoder, tmp_path):
    run_export(encoder(), tmp_path / "out")
    again = encoder()
    run_export(again, tmp_path / "out", overwrite=True)
    assert len(again.calls) == 4
    with pytest.raises(KeyboardInterrupt):
        run_export(encoder(fail_at=3), tmp_path / "out", overwrite=True)
    last = encoder()
    run_export(last, tmp_path / "out", overwrite=True)
    assert len(last.calls) == 1


@pytest.fixture
def changed_dataset(tiny_source: Path, tmp_path: Path) -> Dataset:
    """The tiny dataset after the titles of i03 and i11 changed and an item i99 came."""
    items = pl.read_csv(tiny_source / "items.csv")
    items = items.with_columns(
        pl.when(pl.col("item_id").is_in(["i03", "i11"])).then(pl.lit("another title")).otherwise("title").alias("title")
    )
    new = dict.fromkeys(items.columns) | {"item_id": "i99", "title": "new"}
    items = pl.concat([items, pl.DataFrame([new], schema=items.schema)])
    items.write_csv(tmp_path / "items.csv")
    vectors = np.load(tiny_source / "vec.npy")
    np.save(tmp_path / "vec.npy", np.concatenate([vectors, np.full((1, 8), np.nan, np.float32)]))
    config = IngestConfig(
        items=tmp_path / "items.csv",
        interactions=tiny_source / "interactions.csv",
        media_root=tiny_source,
        features=(f"vec={tmp_path / 'vec.npy'}",),
        text_columns=("title", "description"),
        out=tmp_path / "changed",
        num_workers=1,
    )
    return Dataset.open(ingest(config))


def test_since_copies_unchanged_items_bit_for_bit_and_encodes_the_rest(
    run_export, encoder, tiny_dataset, changed_dataset, tmp_path
):
    run_export(encoder(seed=1), tmp_path / "old")
    second = encoder(seed=2)  # another stream, so that copied and encoded vectors cannot be confused
    report = run_export(second, tmp_path / "new", dataset=changed_dataset, since=tmp_path / "old")
    encoded = {str(changed_dataset.item_ids[idx]) for call in second.calls for idx in call}
    assert encoded == {"i03", "i11", "i99"}
    assert (report.encoded, report.copied) == (3, 22)
    old, new = ExportFolder.open(tmp_path / "old"), ExportFolder.open(tmp_path / "new")
    kept = [item_id for item_id in tiny_dataset.item_ids if item_id not in encoded]
    assert np.array_equal(new.vectors_of(kept), old.vectors_of(kept))
    assert not np.array_equal(new.vector("i03"), old.vector("i03"))


def test_since_an_export_of_another_model_encodes_everything_and_says_so(run_export, encoder, tmp_path, caplog):
    run_export(encoder(), tmp_path / "old")
    with caplog.at_level(logging.WARNING):
        report = run_export(encoder(seed=1), tmp_path / "new", model_hash="b" * 64, since=tmp_path / "old")
    assert (report.encoded, report.copied) == (24, 0)
    assert "all items are encoded again" in caplog.text


def test_since_encodes_items_of_which_the_model_sees_other_modalities(run_export, encoder, tiny_dataset, tmp_path):
    run_export(encoder(), tmp_path / "old")
    presence = np.stack([tiny_dataset.present(name) for name in tiny_dataset.modalities], axis=1)
    presence[5] = ~presence[5]
    second = encoder()
    run_export(second, tmp_path / "new", presence=presence, since=tmp_path / "old")
    assert second.calls == [[5]]


@pytest.mark.parametrize("overrides", [{"model_hash": "b" * 64}, {"shard_items": 8}])
def test_an_export_of_something_else_is_replaced_only_with_overwrite(run_export, encoder, tmp_path, overrides):
    run_export(encoder(), tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(DataError, match=r"holds model aaaaaaaaaaaa on dataset 'tiny' .* --overwrite replaces it"):
        run_export(encoder(), tmp_path / "out", **overrides)
    assert contents(tmp_path / "out") == before
    run_export(encoder(), tmp_path / "out", overwrite=True, **overrides)
    run_export(encoder(), tmp_path / "fresh", **overrides)
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_a_folder_that_is_no_export_is_never_touched(run_export, encoder, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="is no export; choose another --out"):
        run_export(encoder(), tmp_path, overwrite=True)
    assert contents(tmp_path) == {"thesis.txt": b"mine"}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_refused_with_the_item(run_export, encoder, tiny_dataset, tmp_path, value):
    def broken(item_idx: np.ndarray) -> np.ndarray:
        vectors = encoder()(item_idx)
        vectors[item_idx == 9, 3] = value
        return vectors

    with pytest.raises(DataError, match=f"NaN or infinite vectors for 1 of 7 items.*'{tiny_dataset.item_ids[9]}'"):
        run_export(broken, tmp_path / "out")


def test_too_few_vectors_are_refused(run_export, encoder, tmp_path):
    with pytest.raises(DataError, match=r"shape \(6, 6\) for 7 items"):
        run_export(lambda item_idx: encoder()(item_idx)[1:], tmp_path / "out")


def test_settings_that_cannot_work_are_refused(run_export, encoder, tmp_path):
    with pytest.raises(ConfigError, match="shard_items is 0"):
        run_export(encoder(), tmp_path / "out", shard_items=0)
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        run_export(encoder(), tmp_path / "out", checkpoint=tmp_path / "nothing")
    with pytest.raises(DataError, match="are the same folder"):
        run_export(encoder(), tmp_path / "out", since=tmp_path / "out")
    with pytest.raises(DataError, match="is no export folder"):
        run_export(encoder(), tmp_path / "out", since=tmp_path / "nothing")
    assert not (tmp_path / "out").exists()


def test_progress_counts_every_item(run_export, encoder, tmp_path):
    steps: list[int] = []
    run_export(encoder(), tmp_path / "out", progress=steps.append)
    assert steps == [7, 7, 7, 3]


def test_the_vectors_of_a_recommender_are_exported_as_it_scores_them(tiny_dataset, tmp_path):
    from mmrec.inference import encode_catalog
    from mmrec.item_encoder import fit_preprocessings
    from mmrec.item_inputs import CatalogInputs
    from mmrec.model import load_model, model_hash, model_writers
    from mmrec.training.presets import preset

    config = preset("hybrid", tiny_dataset.path)
    train_items = np.arange(24) < 20
    model = config.model.build(fit_preprocessings(config.model.item_encoder, tiny_dataset, train_items))
    (tmp_path / "checkpoint").mkdir()
    for name, write in model_writers(model, model.state_dict(), to_dict(config)).items():
        write(tmp_path / "checkpoint" / name)
    catalog = CatalogInputs(tiny_dataset, model.inputs)
    export(
        lambda item_idx: encode_catalog(model, catalog, item_idx).numpy(),
        tiny_dataset,
        tmp_path / "out",
        checkpoint=tmp_path / "checkpoint",
        model_hash=model_hash(tmp_path / "checkpoint"),
        presence=catalog.present,
        modalities=tuple(model.inputs.modalities),
    )
    exported = ExportFolder.open(tmp_path / "out", verify=True)
    again = load_model(tmp_path / "out" / "model")
    vectors = encode_catalog(again, CatalogInputs(tiny_dataset, again.inputs), np.arange(24)).numpy()
    assert np.array_equal(exported.vectors_of(tiny_dataset.item_ids), vectors)
    assert exported.manifest["normalised"] is True
    assert exported.manifest["model_hash"] == model_hash(tmp_path / "out" / "model")
