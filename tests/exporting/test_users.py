"""Vectors of users: of the histories of the dataset, by the user encoder, from the item vectors of the export."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mmrec.cli import main
from mmrec.data.sequences import Sequences
from mmrec.errors import ConfigError, DataError
from mmrec.export_folder import ENCODINGS, ExportFolder
from tests.exporting.test_exporter import contents, damage


def mean_of(items: np.ndarray, histories: Sequences) -> np.ndarray:
    """A user encoder: the mean of the item vectors."""
    return np.stack([items[histories.items_of(user)].mean(axis=0) for user in range(len(histories))])


def test_users_have_vector_count_and_time_of_their_last_event(run_export, encoder, tiny_dataset, tmp_path):
    run_export(encoder(), tmp_path / "out", encode_users=mean_of, users=True)
    export, sequences = ExportFolder.open(tmp_path / "out", verify=True), tiny_dataset.sequences
    users = export.users
    assert users.user_ids.to_pylist() == sequences.user_ids.tolist()
    assert np.array_equal(users.vectors, mean_of(encoder()(np.arange(24)), sequences))
    for user in range(30):
        times = sequences.timestamps[sequences.offsets[user] : sequences.offsets[user + 1]]
        assert users.events[user] == len(times)
        assert users.last_times[user].as_py() == times[-1]
    assert export.manifest["users"]["num_users"] == 30
    assert [part["rows"] for part in export.manifest["users"]["parts"]] == [7, 7, 7, 7, 2]
    table = pq.read_table(tmp_path / "out" / "users")
    assert table.column_names == ["user_id", "vector", "events", "last_time"]


@pytest.mark.parametrize("dtype", ["int8", "binary"])
def test_users_are_made_of_the_stored_items_and_stored_as_they_are(run_export, encoder, tiny_dataset, tmp_path, dtype):
    """So that they are what the export's own user encoder gives for the same history."""
    run_export(encoder(), tmp_path / "out", encode_users=mean_of, users=True, dtype=dtype, form="npy")
    export = ExportFolder.open(tmp_path / "out")
    expected = mean_of(export.vectors, tiny_dataset.sequences)
    encoding = ENCODINGS[dtype]
    assert np.array_equal(export.users.vectors, encoding.decode(*encoding.encode(expected), 6))


def test_a_finished_export_gains_users_without_encoding_items_and_keeps_them(run_export, encoder, tmp_path):
    run_export(encoder(), tmp_path / "out")
    with pytest.raises(DataError, match="has no vectors of users; export with --users"):
        _ = ExportFolder.open(tmp_path / "out").users
    again = encoder()
    run_export(again, tmp_path / "out", encode_users=mean_of, users=True)
    run_export(encoder(), tmp_path / "whole", encode_users=mean_of, users=True)
    assert again.calls == []
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    run_export(again, tmp_path / "out", encode_users=mean_of)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole"), "asking for no users does not remove them"


def test_an_export_that_was_interrupted_at_its_users_goes_on_there(run_export, encoder, tmp_path):
    calls: list[int] = []

    def interrupted(items: np.ndarray, histories: Sequences) -> np.ndarray:
        calls.append(len(histories))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return mean_of(items, histories)

    with pytest.raises(KeyboardInterrupt):
        run_export(encoder(), tmp_path / "out", encode_users=interrupted, users=True)
    second = encoder()
    run_export(second, tmp_path / "out", encode_users=interrupted, users=True)
    assert second.calls == []
    assert len(calls) == 6, "three parts were left, one of them tried before"
    run_export(encoder(), tmp_path / "whole", encode_users=mean_of, users=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_damaged_part_of_users_is_named_and_restored(run_export, encoder, tmp_path):
    run_export(encoder(), tmp_path / "out", encode_users=mean_of, users=True)
    before, name = contents(tmp_path / "out"), "users/part-00001.parquet"
    damage(tmp_path / "out" / name)
    with pytest.raises(DataError, match=f"{name} is damaged"):
        _ = ExportFolder.open(tmp_path / "out").users
    again = encoder()
    run_export(again, tmp_path / "out", encode_users=mean_of)
    assert again.calls == []
    assert contents(tmp_path / "out") == before


def test_what_cannot_be_a_user_vector_is_refused(run_export, encoder, tmp_path):
    with pytest.raises(ConfigError, match="makes no vectors of users; export without --users"):
        run_export(encoder(), tmp_path / "none", users=True)
    with pytest.raises(DataError, match="NaN or infinite vectors for 7 of 7 users, for example 'u00'"):
        run_export(
            encoder(), tmp_path / "nan", users=True, encode_users=lambda items, of: np.full((len(of), 6), np.nan)
        )


def test_users_of_a_trained_model_are_those_that_the_export_gives_for_their_histories(tiny_dataset, tmp_path):
    import mmrec
    from mmrec.engine import History

    data, run, out = ["--data", str(tiny_dataset.path)], str(tmp_path / "run"), tmp_path / "out"
    assert main(["train", "id", *data, "--out", run, "--max-epochs", "1", "--trackers"]) == 0
    assert main(["export", run, *data, "--out", str(out), "--users"]) == 0
    engine, sequences = mmrec.load(out), tiny_dataset.sequences
    histories = [History(items=tuple(tiny_dataset.item_ids[sequences.items_of(user)].tolist())) for user in range(30)]
    np.testing.assert_allclose(engine.export.users.vectors, engine.encode_users(histories), atol=1e-6)
    assert json.loads(Path(out / "manifest.json").read_text())["users"]["num_users"] == 30
