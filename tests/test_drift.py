"""`mmrec drift`: what moved, what stayed, and what cannot be compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmrec.cli import main
from mmrec.data.splits import make_split
from mmrec.drift import drift, embedding_drift, popularity_shift
from mmrec.errors import ConfigError, DataError
from mmrec.evaluator import make_record, score_vectors, write_record
from tests.exporting.conftest import Encoder, checkpoint, run_export  # noqa: F401 - fixtures


def values(changes) -> dict:
    return {change.what: change.both if change.old is None else (change.old, change.new) for change in changes}


def test_a_rotation_moves_vectors_and_no_neighbours() -> None:
    generator = np.random.default_rng(0)
    old = generator.standard_normal((50, 6))
    turn = np.linalg.qr(generator.standard_normal((6, 6)))[0]
    found = embedding_drift(old, old @ turn)
    assert found["aligned_cosine"] == pytest.approx(1)
    assert found["neighbours_kept"] == 1
    assert found["cosine"] < 0.9
    assert list(embedding_drift(old, old).values()) == pytest.approx([1, 1, 1])


def test_other_vectors_keep_neighbours_by_chance_alone() -> None:
    generator = np.random.default_rng(0)
    found = embedding_drift(generator.standard_normal((300, 6)), generator.standard_normal((300, 9)))
    assert "cosine" not in found, "the widths differ"
    assert found["neighbours_kept"] < 0.1


def test_the_shift_of_popularity_is_zero_for_the_same_and_one_bit_for_strangers() -> None:
    assert popularity_shift(np.array([1.0, 3]), np.array([2.0, 6])) == {"divergence": 0, "top_kept": 1, "unseen": 0}
    apart = popularity_shift(np.array([1.0, 0]), np.array([0.0, 5]))
    assert apart == {"divergence": pytest.approx(1), "top_kept": 0, "unseen": 1}
    half = popularity_shift(np.array([1.0, 1]), np.array([2.0, 0]))
    expected = (0.5 * np.log2(0.5 / 0.75) + 0.5 * np.log2(0.5 / 0.25) + np.log2(1 / 0.75)) / 2
    assert half["divergence"] == pytest.approx(expected)


def test_exports_are_compared_by_item_and_modality(run_export, tiny_dataset, tmp_path: Path, capsys) -> None:  # noqa: F811
    for name, seed in (("old", 0), ("same", 0), ("new", 1)):
        run_export(Encoder(seed), tmp_path / name)
    found = values(drift(tmp_path / "old", tmp_path / "same"))
    assert found["vectors: cosine"] == pytest.approx(1)
    assert found["items"] == (24, 24)
    assert found["items: gone"] == found["items: added"] == 0
    share = float(tiny_dataset.present("image").mean())
    assert found["coverage: image"] == (pytest.approx(share), pytest.approx(share))
    assert values(drift(tmp_path / "old", tmp_path / "new"))["vectors: cosine"] < 0.5
    assert main(["drift", str(tmp_path / "old"), str(tmp_path / "new")]) == 0
    assert "coverage: image" in capsys.readouterr().out


def test_periods_of_a_dataset_are_compared_at_a_day(tiny_dataset, tiny_dataset_path) -> None:
    whole = values(drift(tiny_dataset_path, tiny_dataset_path))
    assert whole["popularity: divergence"] == 0
    times = tiny_dataset.sequences.timestamps
    day = str(np.datetime64(int(np.median(times)), "s"))[:10]
    start = int(np.datetime64(day, "s").astype(np.int64))
    found = values(drift(tiny_dataset_path, tiny_dataset_path, cut=day))
    assert found["events"] == ((times < start).sum(), (times >= start).sum())
    assert found["popularity: divergence"] > 0
    with pytest.raises(DataError, match="no events on its side"):
        drift(tiny_dataset_path, tiny_dataset_path, cut="1970-01-01")
    with pytest.raises(ConfigError, match="is no day"):
        drift(tiny_dataset_path, tiny_dataset_path, cut="May")


def test_folders_of_different_kinds_are_refused(run_export, tiny_dataset_path, tmp_path: Path) -> None:  # noqa: F811
    run_export(Encoder(), tmp_path / "export")
    with pytest.raises(DataError, match="give two folders of one kind"):
        drift(tmp_path / "export", tiny_dataset_path)
    with pytest.raises(ConfigError, match="goes with datasets"):
        drift(tmp_path / "export", tmp_path / "export", cut="2018-05-01")
    with pytest.raises(DataError, match="no export, no dataset and no results"):
        drift(tmp_path, tmp_path)


def test_the_decay_of_metrics_between_two_evaluations_is_told_and_other_protocols_are_named(
    tiny_dataset, tmp_path: Path, capsys
) -> None:
    split = make_split(tiny_dataset.sequences, tiny_dataset.num_items)
    records = {}
    for name, part, noise in (("good", "test", 0.1), ("decayed", "test", 9.0), ("valid", "valid", 0.1)):
        queries = split.test if part == "test" else split.valid
        users = noise * np.random.default_rng(0).standard_normal((len(queries), 24)).astype(np.float32)
        users[np.arange(len(queries)), queries.targets] += 1
        result = score_vectors(split, part, users, np.eye(24, dtype=np.float32))
        records[name] = make_record(tiny_dataset, split, part, result)
        write_record(tmp_path / name, records[name], tiny_dataset, split, part, result)
    changes = drift(tmp_path / "good", tmp_path / "decayed")
    found = values(changes)
    for name in ("ndcg@10", "hr@10", "mrr"):
        assert found[name] == (records["good"]["metrics"][name], records["decayed"]["metrics"][name])
    assert found["mrr"][1] < found["mrr"][0]
    assert found["coverage@10"][0] == records["good"]["beyond_accuracy"]["coverage@10"]
    assert not any("protocols differ" in change.meaning for change in changes)
    assert main(["drift", str(tmp_path / "good"), str(tmp_path / "decayed")]) == 0
    lost = found["mrr"][1] / found["mrr"][0] - 1
    assert f"{lost:+.1%}" in capsys.readouterr().out
    others = drift(tmp_path / "good", tmp_path / "valid")
    assert "the protocols differ" in next(change for change in others if change.what == "mrr").meaning
