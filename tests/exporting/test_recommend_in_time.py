"""What is served is what was evaluated: the user vector of a model that reads times, from an export alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mmrec.cli import main
from mmrec.data.dataset import Dataset
from mmrec.data.sequences import Sequences, pack
from mmrec.errors import ConfigError
from mmrec.export_folder import ExportFolder
from mmrec.inference import encode_histories, encode_history
from mmrec.model import load_user_encoder
from mmrec.training.evaluation import vectors_of_export
from mmrec.user_encoders import HSTUConfig, SASRecConfig


@pytest.fixture(scope="module", params=["unknown", "known"])
def export(request, tiny_dataset_path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    data = ["--data", str(tiny_dataset_path)]
    train = ["train", "id", *data, "--out", str(folder / "run"), "--user-encoder", "hstu", "--max-epochs", "1"]
    assert main([*train, "--model.user-encoder.query-time", request.param, "--trackers"]) == 0
    assert main(["export", str(folder / "run"), *data, "--out", str(folder / "export")]) == 0
    encoder = load_user_encoder(folder / "export" / "model")
    assert (encoder.query_time, encoder.reads_times) == (request.param == "known", True)
    return folder / "export"


def history_of(dataset: Dataset, row: int) -> tuple[list[str], list[int]]:
    taken = dataset.sequences.take(np.array([row]))
    return dataset.item_ids[taken.item_idx].tolist(), taken.timestamps.tolist()


def asked(capsys, *arguments: str) -> list[dict]:
    capsys.readouterr()
    assert main(["recommend", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_user_is_served_with_the_vector_of_the_evaluation(export, tiny_dataset, capsys):
    evaluated = vectors_of_export(export, tiny_dataset.path, "test")
    queries = evaluated.split.test
    dataset_row, q = int(queries.user[0]), 0
    items, times = history_of(tiny_dataset, dataset_row)
    items, times = items[:-1], times[:-1]  # the last event is the one that the query asks for
    at = str(int(queries.times[q]))
    hits = asked(capsys, str(export), "--items", *items, "--times", *map(str, times), "--at", at, "--k", "24")
    for hit in hits:
        expected = float(evaluated.users[q] @ evaluated.items[tiny_dataset.item_index(hit["item_id"])])
        assert hit["score"] == pytest.approx(expected, abs=1e-5)


def test_the_history_of_a_user_of_the_dataset_comes_with_its_times(export, tiny_dataset, capsys):
    items, times = history_of(tiny_dataset, 3)
    user = str(tiny_dataset.sequences.user_ids[3])
    moment = ["--at", str(times[-1] + 5000)]
    by_user = asked(capsys, str(export), "--user", user, "--data", str(tiny_dataset.path), *moment)
    by_items = asked(capsys, str(export), "--items", *items, "--times", *map(str, times), *moment)
    assert by_user == by_items


def test_without_times_such_a_model_asks_for_them(export, capsys):
    assert main(["recommend", str(export), "--items", "i01", "i02"]) == 2
    assert "this model reads when items were taken; give --times" in capsys.readouterr().err


def test_as_many_times_as_items(export, capsys):
    assert main(["recommend", str(export), "--items", "i01", "i02", "--times", "5"]) == 2
    assert "1 times were given for 2 items; give one for each" in capsys.readouterr().err


def test_the_moment_of_the_query_matters_to_a_model_that_is_told(export, tiny_dataset):
    encoder, opened = load_user_encoder(export / "model"), ExportFolder.open(export)
    items, times = history_of(tiny_dataset, 3)
    vectors, when = torch.from_numpy(opened.vectors_of(items)), np.array(times)
    torch.nn.init.normal_(encoder.out.weight)  # after one epoch it hardly speaks
    torch.nn.init.normal_(encoder.blocks[0].time_bias.weight)
    soon, late = (encode_history(encoder, vectors, when, query_time=times[-1] + s) for s in (1, 10**8))
    assert torch.equal(soon, late) == (not encoder.query_time)


def test_a_model_that_is_told_the_time_needs_the_times_of_events():
    with pytest.raises(ConfigError, match="give that time and those of the events"):
        encode_history(HSTUConfig(query_time="known").build(8), torch.randn(3, 8), query_time=10)


def histories(lengths: list[int]) -> Sequences:
    generator = np.random.default_rng(0)
    return Sequences(
        user_ids=np.array([f"u{n}" for n in range(len(lengths))]),
        offsets=pack(np.array(lengths)),
        item_idx=generator.integers(9, size=sum(lengths)).astype(np.int32),
        timestamps=None,
        split=None,
        order="position",
    )


def test_histories_are_encoded_in_chunks_of_events_and_cut_to_what_is_read():
    torch.manual_seed(0)
    encoder, vectors = SASRecConfig(max_length=6).build(8), torch.randn(9, 8)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    history = histories([3, 0, 40, 6, 1, 0, 7])
    whole = encode_histories(encoder, vectors, history)
    assert whole.norm(dim=1).tolist() == pytest.approx([1, 0, 1, 1, 1, 0, 1], abs=1e-5), "nothing known, no direction"
    for chunk_events in (1, 6, 7, 13):
        found = encode_histories(encoder, vectors, history, chunk_events=chunk_events)
        torch.testing.assert_close(found, whole, atol=1e-5, rtol=0)
    last = history.item_idx[history.offsets[2] : history.offsets[3]][-6:]
    torch.testing.assert_close(encode_history(encoder, vectors[last]), whole[2], atol=1e-5, rtol=0)
