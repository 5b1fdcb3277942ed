"""Many processes export together: each part once, none waits for the dead or the slow, killed ones cost nothing."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from mmrec.errors import DataError
from mmrec.export_folder import ExportFolder
from mmrec.exporter import units
from tests.exporting.test_exporter import contents, damage

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def start(tiny_dataset_path: Path, checkpoint: Path):
    """Starts a process that exports the tiny dataset item by item; whatever still runs in the end is killed."""
    running: list[subprocess.Popen] = []

    def start(out: Path, sleep_s: float = 0.0, *options: str) -> subprocess.Popen:
        arguments = [str(tiny_dataset_path), str(checkpoint), str(out), str(sleep_s), *options]
        command = [sys.executable, "-m", "tests.exporting.exporting_process", *arguments]
        running.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate()


def encoded_by(process: subprocess.Popen) -> int:
    told, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    return int(told)


def num_done(out: Path) -> int:
    return len(list((out / "unfinished" / "done").glob("part-*.json")))


def wait_for(condition, process: subprocess.Popen | None = None, limit_s: float = 120.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition() and time.monotonic() < deadline and (process is None or process.poll() is None):
        time.sleep(0.005)


def test_two_processes_share_the_parts_and_write_what_one_writes(start, tmp_path):
    alone = start(tmp_path / "alone")
    both = [start(tmp_path / "out", 0.2) for _ in range(2)]
    encoded = [encoded_by(process) for process in both]
    assert encoded_by(alone) == 24
    assert sum(encoded) == 24, "each part by one of them"
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")


def test_killed_processes_cost_nothing_but_what_they_were_doing(start, tmp_path):
    """Two processes killed together at three moments; then one finishes, with the bytes of an undisturbed export."""
    assert encoded_by(start(tmp_path / "whole")) == 24
    moments, out = random.Random(3), tmp_path / "out"
    for _ in range(3):
        pair, before = [start(out, 0.1) for _ in range(2)], num_done(out)
        wait_for(lambda before=before: num_done(out) > before + 1, pair[0])
        time.sleep(moments.uniform(0.0, 0.2))
        for process in pair:
            process.send_signal(signal.SIGKILL)
            process.wait()
    left = 24 - num_done(out)
    assert 0 < left < 24
    assert encoded_by(start(out)) == left
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_ten_kills_at_random_moments_of_two_processes_leave_the_bytes_of_an_undisturbed_export(start, tmp_path):
    assert encoded_by(start(tmp_path / "whole", 0.0, "--index")) == 24
    moments, out, kills = random.Random(7), tmp_path / "out", 0
    while True:
        pair = [start(out, 0.3, "--index") for _ in range(2)]
        if kills < 10:
            wait_for((out / "unfinished").exists, pair[0])
            time.sleep(moments.uniform(0.0, 4.0))
            for process in pair:
                kills += process.poll() is None
                process.send_signal(signal.SIGKILL)
                process.wait()
            continue
        if all(process.wait(600) == 0 for process in pair):
            break
    export = ExportFolder.open(out, verify=True)
    assert len(set(export.item_ids.tolist())) == export.num_items == 24
    assert contents(out) == contents(tmp_path / "whole")


def test_a_process_joins_while_another_one_is_at_work(run_export, encoder, tmp_path):
    """The second begins from within the first one's encoding: it takes all other parts, and waits for that one."""
    second, threads = encoder(), []

    def first(item_idx: np.ndarray) -> np.ndarray:
        if not threads:
            threads.append(threading.Thread(target=lambda: run_export(second, tmp_path / "out")))
            threads[0].start()
            wait_for(lambda: len(second.calls) == 3)
        return encoder()(item_idx)

    report = run_export(first, tmp_path / "out")
    threads[0].join()
    assert (report.encoded, report.already_there) == (7, 17)
    assert sorted(call[0] for call in second.calls) == [7, 14, 21]
    run_export(encoder(), tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_slow_process_loses_its_part_and_the_export_ends_without_it(run_export, encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(units, "SILENCE_S", 0.1)
    go_on, slow = threading.Event(), []

    def dawdling(item_idx: np.ndarray) -> np.ndarray:
        go_on.wait(60)
        return encoder()(item_idx)

    thread = threading.Thread(target=lambda: slow.append(run_export(dawdling, tmp_path / "out")))
    thread.start()
    wait_for(lambda: list((tmp_path / "out").glob("unfinished/leases/part-*")))
    report = run_export(encoder(), tmp_path / "out")
    assert report.encoded == 24
    before = contents(tmp_path / "out")
    go_on.set()
    thread.join()
    assert slow[0].encoded == 0
    assert slow[0].already_there == 24
    assert contents(tmp_path / "out") == before


def test_a_process_that_finishes_looks_at_what_others_have_written(run_export, encoder, tmp_path):
    """A part that another process wrote and that is damaged since is written again."""

    def first(item_idx: np.ndarray) -> np.ndarray:
        if item_idx[0] == 7:
            damage(tmp_path / "out" / "embeddings" / "part-00000.parquet")
        return encoder()(item_idx)

    with pytest.raises(KeyboardInterrupt):
        run_export(encoder(fail_at=1), tmp_path / "out")
    run_export(first, tmp_path / "out")
    run_export(encoder(), tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_processes_of_different_exports_do_not_mix(run_export, encoder, tmp_path):
    def first(item_idx: np.ndarray) -> np.ndarray:
        with pytest.raises(DataError, match=r"holds model aaaaaaaaaaaa .* this is model bbbbbbbbbbbb"):
            run_export(encoder(), tmp_path / "out", model_hash="b" * 64)
        return encoder()(item_idx)

    run_export(first, tmp_path / "out")
    assert ExportFolder.open(tmp_path / "out").manifest["model_hash"] == "a" * 64


def test_an_export_that_is_replaced_while_it_is_written_says_so(run_export, encoder, tmp_path):
    def first(item_idx: np.ndarray) -> np.ndarray:
        if item_idx[0] == 14:
            run_export(encoder(seed=1), tmp_path / "out", model_hash="b" * 64, overwrite=True)
        return encoder()(item_idx)

    with pytest.raises(DataError, match="was replaced by another export while it was written"):
        run_export(first, tmp_path / "out")
    run_export(encoder(seed=1), tmp_path / "whole", model_hash="b" * 64)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_an_export_whose_replacement_was_cut_short_is_replaced_by_the_next_command(
    run_export, encoder, tmp_path, monkeypatch
):
    run_export(encoder(), tmp_path / "out", index=True)
    from mmrec.exporter import workplace

    with monkeypatch.context() as patch:
        patch.setattr(workplace.shutil, "rmtree", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_export(encoder(), tmp_path / "out", model_hash="b" * 64, overwrite=True)
    with pytest.raises(DataError, match="unfinished export"):
        ExportFolder.open(tmp_path / "out")
    run_export(encoder(), tmp_path / "out", model_hash="b" * 64)
    run_export(encoder(), tmp_path / "whole", model_hash="b" * 64)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_what_a_killed_process_left_after_the_manifest_is_removed(run_export, encoder, tmp_path, monkeypatch):
    from mmrec.exporter.workplace import Workplace

    run_export(encoder(), tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(Workplace, "remove", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_export(encoder(), tmp_path / "out")
    ExportFolder.open(tmp_path / "out", verify=True)
    (tmp_path / "out" / ".finished-0123").mkdir()
    again = encoder()
    run_export(again, tmp_path / "out")
    assert again.calls == []
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_an_error_of_the_model_ends_the_export_and_is_no_reason_to_wait(run_export, encoder, tmp_path):
    def broken(item_idx: np.ndarray) -> np.ndarray:
        raise FileNotFoundError("weights.bin")

    with pytest.raises(FileNotFoundError, match=r"weights\.bin"):
        run_export(broken, tmp_path / "out")
    run_export(encoder(), tmp_path / "out")
    run_export(encoder(), tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
