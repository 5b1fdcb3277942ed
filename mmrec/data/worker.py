"""A process that does units of work and is watched: whatever a decoder does to it costs the medium that did it."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any

from mmrec.data.units import Unit, UnitResult, UnitSettings, build_unit
from mmrec.errors import DataError

__all__ = ["Worker"]

# Loaded once, in the process from which workers are forked.
_PRELOAD = ["mmrec.data.units", "PIL.Image", "av", "soundfile", "scipy.signal", "numpy"]
# To start a process, for units or for media, is nobody's fault; it is given this long.
_START_S = 120.0
# How often a worker tells of its progress.
_TELL_S = 0.1
_starting = threading.Lock()


class Worker:
    """One process after another: the next is started when one has died, or has told of no progress for too long.

    Use it as a context manager and in one thread; ``interrupt`` may come from another.
    """

    def __init__(self) -> None:
        self._process: Any = None
        self._connection: Connection | None = None
        self._is_interrupted = False

    def do(self, unit: Unit, settings: UnitSettings, progress: Callable[[int], None]) -> UnitResult:
        """What became of the unit; where the process does not survive it, once more with each medium decoded apart.

        Args:
            progress: called with the number of items done since the last call; negative when they are done again.

        Raises:
            DataError: if the unit ends the process even so.
            Exception: whatever else ``build_unit`` raises.
        """
        patience_s = settings.timeout_s + 2 * _TELL_S
        for apart in (False, True):
            result = self._try(unit, replace(settings, isolated=apart), patience_s, progress)
            if result is not None:
                return result
            patience_s += _START_S
        raise DataError(
            f"a process that reads the media of items {unit.items[0].item_id!r} to {unit.items[-1].item_id!r} dies or "
            "hangs, even where each is decoded apart; see whether memory suffices and the media folder answers"
        )

    def interrupt(self) -> None:
        """Have ``do`` end at once, by an error, now and from now on."""
        self._is_interrupted = True
        process = self._process
        if process is not None:
            process.kill()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _try(
        self, unit: Unit, settings: UnitSettings, patience_s: float, progress: Callable[[int], None]
    ) -> UnitResult | None:
        """The result; None if the process has died, or was ended because it told of nothing for ``patience_s``."""
        done = 0
        try:
            connection = self._waiting()
            connection.send((unit, settings))
            while connection.poll(patience_s):
                told = connection.recv()
                if isinstance(told, UnitResult):
                    return told
                if isinstance(told, Exception):
                    raise told
                progress(told)
                done += told
        except (EOFError, ConnectionError):
            pass
        self._end()
        if self._is_interrupted:
            raise RuntimeError("this worker was interrupted")
        progress(-done)
        return None

    def _waiting(self) -> Connection:
        """The way to a process that waits for a unit. Raises: EOFError if the worker was interrupted."""
        if self._connection is None and not self._is_interrupted:
            self._start()
        if self._connection is None or self._is_interrupted:
            raise EOFError
        return self._connection

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOAD)
        self._connection, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,), daemon=True)
        with _starting, theirs, _without_main():
            process.start()
        self._process = process
        if not self._connection.poll(_START_S):
            raise DataError(f"a process for reading media does not start within {_START_S:.0f} s; is the machine busy?")
        self._connection.recv()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Workers that start meanwhile do not run the caller's script again, which may build at its top level.

    Not thread-safe towards code that looks up ``__main__`` itself: for the milliseconds that a start takes, the module
    is an empty one to all threads.
    """
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _serve(connection: Connection) -> None:
    """The process: units in, results out, and between them how many items were done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends its workers
    _use_one_thread()
    parent = multiprocessing.parent_process()
    assert parent is not None

    def leave_with_parent() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)  # a killed build leaves nobody behind

    threading.Thread(target=leave_with_parent, daemon=True).start()
    connection.send(0)
    while True:
        try:
            unit, settings = connection.recv()
        except EOFError:
            return
        try:
            answer: Any = build_unit(unit, settings, _Teller(connection))
        except Exception as error:  # goes to the parent, whose caller judges it
            answer = error
        connection.send(answer)


def _use_one_thread() -> None:
    """Processes share the CPUs, and PyTorch would take them all for each; it reads this when it is first imported."""
    os.environ.update({f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")})


class _Teller:
    """Tells the parent of items that were done, now and then. Safe under threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._lock = connection, threading.Lock()
        self._done, self._last_s = 0, 0.0

    def __call__(self, items: int) -> None:
        with self._lock:
            self._done += items
            if time.monotonic() - self._last_s >= _TELL_S:
                self._connection.send(self._done)
                self._done, self._last_s = 0, time.monotonic()
