"""Leases: one owner at a time, taken over from the dead and the silent, and lost by the slow without harm."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mmrec.data.leases import Leases

HOLDER = """
import sys, time
from pathlib import Path
from mmrec.data.leases import Leases
with Leases(Path(sys.argv[1])) as leases:
    print(leases.take("unit"), flush=True)
    time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def from_elsewhere(folder: Path, name: str = "unit") -> None:
    """As if a process of another machine had taken the unit."""
    (folder / name).write_text(json.dumps({"token": "other", "machine": "elsewhere", "pid": 1, "started": "1"}))


def test_a_unit_has_one_owner_until_it_is_given_back(folder):
    with Leases(folder) as one, Leases(folder) as two:
        assert one.take("unit")
        assert one.take("unit"), "who has it has it"
        assert not two.take("unit")
        assert (one.holds("unit"), two.holds("unit")) == (True, False)
        two.release("unit")
        assert one.holds("unit"), "only the owner gives it back"
        one.release("unit")
        assert two.take("unit")
    assert list(folder.iterdir()) == [], "closing gives everything back"


def test_of_many_who_ask_at_once_one_gets_it(folder):
    got: list[bool] = []
    start = threading.Barrier(16)

    def ask() -> None:
        leases = Leases(folder)
        start.wait()
        got.append(leases.take("unit"))

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [False] * 15 + [True]


def test_the_lease_of_a_killed_process_of_this_machine_is_free_at_once(folder):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    with Leases(folder) as leases:
        assert not leases.take("unit")
        process.kill()
        process.wait()
        assert leases.take("unit")


def test_who_is_silent_elsewhere_is_taken_for_dead_after_a_while_and_not_before(folder):
    from_elsewhere(folder)
    leases = Leases(folder, silence_s=0.3)
    assert not leases.take("unit")
    time.sleep(0.1)
    assert not leases.take("unit")
    assert 0.1 <= leases.watched_s("unit") < 0.3
    time.sleep(0.3)
    assert leases.take("unit")


def test_who_gives_signs_of_life_keeps_its_lease(folder):
    with Leases(folder, silence_s=0.3) as holder:
        assert holder.take("unit")
        watcher = Leases(folder, silence_s=0.6)
        watcher._owner["machine"] = "elsewhere"
        for _ in range(10):
            assert not watcher.take("unit")
            time.sleep(0.1)
        assert holder.holds("unit")


def test_a_lease_that_was_cut_off_before_its_owner_was_written_is_free_after_a_while(folder):
    (folder / "unit").touch()
    leases = Leases(folder, silence_s=0.1)
    assert not leases.take("unit")
    time.sleep(0.15)
    assert leases.take("unit")


def test_seizing_takes_from_the_owner_who_was_seen_and_from_no_other(folder):
    slow, quick, late = (Leases(folder) for _ in range(3))
    assert slow.take("unit")
    assert not quick.take("unit")
    assert not late.take("unit")
    assert quick.seize("unit")
    assert (slow.holds("unit"), quick.holds("unit")) == (False, True)
    assert not late.seize("unit"), "it had seen the slow one, whose lease is no more"
    assert quick.holds("unit")
    slow.release("unit")
    assert quick.holds("unit")
    assert [path.name for path in folder.iterdir()] == ["unit"]


def test_processes_with_one_token_share_their_leases(folder):
    assert Leases(folder, token="job").take("unit")
    assert Leases(folder, token="job").take("unit")
    assert not Leases(folder, token="another job").take("unit")


def test_a_folder_that_is_gone_is_an_error(folder):
    with pytest.raises(FileNotFoundError):
        Leases(folder / "nowhere").take("unit")
