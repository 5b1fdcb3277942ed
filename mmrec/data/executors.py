"""Who does the units of a build: processes of this machine, or a Ray cluster. The results are the same bytes."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import os
import queue
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace

from mmrec.data.ray_tasks import on_ray, refuse_other_machine
from mmrec.data.units import Unit, UnitResult, UnitSettings
from mmrec.data.worker import Worker

__all__ = ["EXECUTORS", "Executor", "local_executor", "ray_executor"]

Executor = Callable[[Iterator[Unit], UnitSettings], Iterator[UnitResult]]


def local_executor(num_workers: int | None, progress: Callable[[int], None]) -> Executor:
    """Units in processes of this machine; a decoder that crashes or hangs costs the medium that did it.

    Args:
        num_workers: processes; None: one for each CPU.
        progress: called with the number of items done since the last call, from any thread.
    """
    number = num_workers or os.cpu_count() or 1

    def run(units: Iterator[Unit], settings: UnitSettings) -> Iterator[UnitResult]:
        first = list(itertools.islice(units, number))
        units = itertools.chain(first, units)
        settings = replace(settings, num_threads=math.ceil(number / max(len(first), 1)))
        idle: queue.LifoQueue[Worker] = queue.LifoQueue()

        def work(unit: Unit) -> UnitResult:
            worker = idle.get()
            try:
                return worker.do(unit, settings, progress)
            finally:
                idle.put(worker)

        with contextlib.ExitStack() as stack:
            workers = [stack.enter_context(Worker()) for _ in first]
            for worker in workers:
                idle.put(worker)
            threads = stack.enter_context(ThreadPoolExecutor(number))
            stack.callback(lambda: [worker.interrupt() for worker in workers])
            running: set[Future[UnitResult]] = set()
            while True:
                running |= {threads.submit(work, unit) for unit in itertools.islice(units, 2 * number - len(running))}
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()

    return run


def ray_executor(num_workers: int | None, progress: Callable[[int], None]) -> Executor:
    """Units as tasks of a Ray cluster whose machines share the folders of the source and of the build.

    The cluster is the one of RAY_ADDRESS, else one on this machine. Decoders that crash or hang cost their medium, as
    on one machine; what a lost machine had is done again on another.

    Args:
        num_workers: tasks at once; None: as many as the cluster has CPUs, and as many waiting.
        progress: called with the number of items of each unit that is done.

    Raises: ConfigError if Ray is not installed.
    """

    def run(units: Iterator[Unit], settings: UnitSettings) -> Iterator[UnitResult]:
        for unit, result in on_ray(functools.partial(_on_this_machine, settings=settings), units, num_workers):
            progress(len(unit.items))
            yield result

    return run


def _on_this_machine(unit: Unit, settings: UnitSettings) -> UnitResult:
    """A unit as a task.

    Raises: DataError if the machine does not see the folders, or has other versions of what writes media.
    """
    refuse_other_machine({"--out": str(settings.folder), "--media-root": settings.root}, settings.versions)
    return _worker_here().do(unit, settings, lambda items: None)


@functools.cache
def _worker_here() -> Worker:
    """Of a process of Ray, which does one task after another; it ends with that process."""
    return Worker()


EXECUTORS: dict[str, Callable[[int | None, Callable[[int], None]], Executor]] = {
    "local": local_executor,
    "ray": ray_executor,
}
