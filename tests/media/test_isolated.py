"""What a decoder does to its process costs one call: the next call works, and no process is left behind."""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

from mmrec.errors import MediaError
from mmrec.media.isolated import IsolatedDecoder, IsolationError

MEMORY = 256 << 20


def own_pid() -> int:
    return os.getpid()


def double(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8) * 2


def segfault() -> None:
    ctypes.string_at(0)


def hang() -> None:
    time.sleep(3600)


def hang_without_letting_go() -> None:
    ctypes.PyDLL(None).sleep(3600)  # foreign code that holds the interpreter's lock


def allocate(num_bytes: int) -> int:
    return int(np.ones(num_bytes, np.uint8)[-1])


def abort() -> None:
    os.abort()


def refuse() -> None:
    raise MediaError("image is empty (0 bytes)")


def divide() -> float:
    return 1 / len(())


class StubbornError(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def raise_stubborn() -> None:
    raise StubbornError(1, 2)


@pytest.fixture(scope="module")
def decoder():
    with IsolatedDecoder(20.0, MEMORY) as isolated:
        yield isolated


def is_gone(pid: int, wait_s: float = 0.0) -> bool:
    end = time.monotonic() + wait_s
    while True:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(0.05)


def test_arrays_come_back(decoder):
    np.testing.assert_array_equal(decoder(double, bytes([1, 2, 3])), [2, 4, 6])


def test_large_arguments_and_results_come_back(decoder):
    assert decoder(double, bytes(20 << 20)).shape == (20 << 20,)


def test_a_child_is_used_again_and_is_another_process(decoder):
    first = decoder(own_pid)
    assert first != os.getpid()
    assert decoder(own_pid) == first


@pytest.mark.parametrize(
    ("function", "args", "words"),
    [
        (segfault, (), r"the decoder crashed \(SIGSEGV\)"),
        (abort, (), r"the decoder crashed \(SIGABRT\)"),
        (allocate, (4 * MEMORY,), "ran out of memory"),
    ],
)
def test_a_crash_costs_one_call(decoder, function, args, words):
    before = decoder(own_pid)
    with pytest.raises(IsolationError, match=words):
        decoder(function, *args)
    assert is_gone(before)  # reaped, no zombie
    assert decoder(double, b"\1").tolist() == [2]


@pytest.mark.parametrize("function", [hang, hang_without_letting_go])
def test_an_endless_loop_costs_its_time(function):
    with IsolatedDecoder(0.5, MEMORY) as decoder:
        pid, start = decoder(own_pid), time.monotonic()
        with pytest.raises(IsolationError, match=r"took longer than 0.5 s"):
            decoder(function)
        assert time.monotonic() - start < 5.0
        assert is_gone(pid)
        assert decoder(double, b"\1").tolist() == [2]


def test_memory_within_the_limit_is_granted(decoder):
    assert decoder(allocate, MEMORY // 2) == 1


def test_a_media_error_comes_through_and_the_child_stays(decoder):
    pid = decoder(own_pid)
    with pytest.raises(MediaError, match=r"^image is empty \(0 bytes\)$") as caught:
        decoder(refuse)
    assert not isinstance(caught.value, IsolationError)
    assert decoder(own_pid) == pid


def test_a_defect_comes_through_with_its_traceback(decoder):
    with pytest.raises(ZeroDivisionError) as caught:
        decoder(divide)
    assert "in divide" in caught.value.__notes__[0]
    with pytest.raises(RuntimeError, match="StubbornError: 1 and 2"):
        decoder(raise_stubborn)


def test_a_function_that_cannot_be_imported_is_an_error_of_the_caller(decoder):
    with pytest.raises((pickle.PicklingError, AttributeError)):
        decoder(lambda: 1)


def test_a_child_that_cannot_start_is_no_fault_of_the_file():
    with IsolatedDecoder(5.0, MEMORY, imports=("no_such_module",)) as decoder, pytest.raises(ModuleNotFoundError):
        decoder(own_pid)


def test_a_child_that_dies_while_idle_is_replaced(decoder):
    pid = decoder(own_pid)
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.2)
    assert decoder(own_pid) != pid


def test_each_thread_has_a_child_and_closing_ends_them_all():
    barrier = threading.Barrier(3)
    with IsolatedDecoder(20.0, MEMORY) as decoder:

        def job(_: int) -> int:
            barrier.wait()
            decoder(time.sleep, 0.3)
            return decoder(own_pid)

        with ThreadPoolExecutor(3) as pool:
            pids = set(pool.map(job, range(3)))
        assert 1 <= len(pids) <= 3
    assert all(is_gone(pid) for pid in pids)
    with pytest.raises(RuntimeError, match="closed"):
        decoder(own_pid)


def decode_in_worker(decoder: IsolatedDecoder) -> tuple[int, int, str]:
    with decoder:
        pid = decoder(own_pid)
        try:
            decoder(segfault)
        except IsolationError as error:
            return os.getpid(), pid, str(error)
    raise AssertionError("no crash")


@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.filterwarnings("ignore")  # Python warns of forks beside threads
def test_workers_of_a_pool_have_children_of_their_own(decoder, method):
    mine = decoder(own_pid)
    with ProcessPoolExecutor(1, mp_context=get_context(method)) as pool:
        worker, child, message = pool.submit(decode_in_worker, decoder).result()
    assert len({os.getpid(), mine, worker, child}) == 4
    assert message == "the decoder crashed (SIGSEGV)"
    assert is_gone(child)
    assert decoder(own_pid) == mine


def test_the_death_of_the_parent_ends_the_child():
    code = (
        f"import os, sys; sys.path[:] = {sys.path!r}\n"
        "from mmrec.media.isolated import IsolatedDecoder\n"
        "print(IsolatedDecoder(1.0, 1 << 28)(os.getpid), flush=True); os.kill(os.getpid(), 9)"
    )
    pid = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout)
    assert is_gone(pid, wait_s=15.0)
