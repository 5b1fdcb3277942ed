"""Who does the units of a build: processes of this machine, or a Ray cluster. The results are the same bytes."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any

from mmrec.data.units import Unit, UnitResult, UnitSettings, build_unit
from mmrec.errors import ConfigError

__all__ = ["EXECUTORS", "Executor", "local_executor", "ray_executor"]

Executor = Callable[[Iterator[Unit], UnitSettings], Iterator[UnitResult]]

# Loaded once, in the process from which workers are forked.
_PRELOAD = ["mmrec.data.units", "PIL.Image", "av", "soundfile", "scipy.signal", "numpy"]
_counter: Any = None  # items done, shared with the process that waits


def local_executor(num_workers: int, progress: Callable[[int], None]) -> Executor:
    """Units in processes of this machine; a process that a decoder crashes costs the medium that did it.

    Args:
        num_workers: processes.
        progress: called with the number of items done since the last call.
    """

    def run(units: Iterator[Unit], settings: UnitSettings) -> Iterator[UnitResult]:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOAD)
        counter = context.Value("q", 0)
        queue = _Queue(units)
        told = 0
        while queue.waits():
            isolated = bool(queue.crashed)
            with ProcessPoolExecutor(num_workers, context, _start_worker, (counter,)) as pool:
                for result in queue.drain(pool, replace(settings, isolated=isolated), num_workers):
                    if result is not None:
                        yield result
                    done = counter.value
                    progress(done - told)
                    told = done

    return run


class _Queue:
    """Units on their way through pools: a pool that breaks gives back what it had, to be done with care."""

    def __init__(self, units: Iterator[Unit]) -> None:
        self._units = units
        self._next = next(units, None)
        self.crashed: list[Unit] = []

    def waits(self) -> bool:
        return bool(self.crashed) or self._next is not None

    def _take(self, isolated: bool) -> Unit | None:
        if isolated:
            return self.crashed.pop(0) if self.crashed else None
        unit, self._next = self._next, None if self._next is None else next(self._units, None)
        return unit

    def drain(self, pool: ProcessPoolExecutor, settings: UnitSettings, room: int) -> Iterator[UnitResult | None]:
        """Results as they come; None every half second. Ends early if the pool breaks; ``crashed`` has the units."""
        running: dict[Future[UnitResult], Unit] = {}
        broken = False
        while True:
            while not broken and len(running) < 2 * room and (unit := self._take(settings.isolated)) is not None:
                with _without_main():  # submitting starts the workers
                    running[pool.submit(_work, unit, settings)] = unit
            if not running:
                return
            done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in done:
                unit = running.pop(future)
                try:
                    yield future.result()
                except BrokenProcessPool:
                    if settings.isolated:
                        raise
                    broken = True
                    self.crashed.append(unit)
            if not done:
                yield None


@contextmanager
def _without_main() -> Iterator[None]:
    """Workers that start meanwhile do not run the caller's script again, which may build at its top level."""
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _start_worker(counter: Any) -> None:
    global _counter
    _counter = counter
    parent = multiprocessing.parent_process()
    assert parent is not None

    def leave_with_parent() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)  # a killed build leaves nobody behind

    threading.Thread(target=leave_with_parent, daemon=True).start()


def _count(done: int) -> None:
    with _counter.get_lock():
        _counter.value += done


def _work(unit: Unit, settings: UnitSettings) -> UnitResult:
    return build_unit(unit, settings, _count)


def ray_executor(num_workers: int, progress: Callable[[int], None]) -> Executor:
    """Units as tasks of a Ray cluster whose machines share the folders of the source and of the build.

    The cluster is the one of RAY_ADDRESS, else one on this machine.

    Args:
        num_workers: tasks at once.
        progress: called with the number of items of each unit that is done.

    Raises: ConfigError if Ray is not installed.
    """
    try:
        import ray
        from ray.exceptions import RayError
    except ImportError as error:
        raise ConfigError("--executor ray needs Ray: pip install 'mmrec[scale]'") from error

    def run(units: Iterator[Unit], settings: UnitSettings) -> Iterator[UnitResult]:
        started = not ray.is_initialized()
        if started:
            ray.init(log_to_driver=False, include_dashboard=False)
        work = ray.remote(max_retries=0)(build_unit)
        running: dict[Any, tuple[Unit, bool]] = {}
        try:
            while True:
                while len(running) < 2 * num_workers and (unit := next(units, None)) is not None:
                    running[work.remote(unit, settings)] = unit, False
                if not running:
                    return
                done, _ = ray.wait(list(running))
                for reference in done:
                    unit, isolated = running.pop(reference)
                    try:
                        result = ray.get(reference)
                    except RayError:
                        if isolated:
                            raise
                        running[work.remote(unit, replace(settings, isolated=True))] = unit, True
                        continue
                    progress(len(unit.items))
                    yield result
        finally:
            if started:
                ray.shutdown()

    return run


EXECUTORS: dict[str, Callable[[int, Callable[[int], None]], Executor]] = {"local": local_executor, "ray": ray_executor}
