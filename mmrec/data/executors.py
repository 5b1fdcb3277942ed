"""Who does the units of a build: processes of this machine, or a Ray cluster. The results are the same bytes."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import os
import queue
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any

from mmrec.data.units import Unit, UnitResult, UnitSettings, package_versions
from mmrec.data.worker import Worker
from mmrec.errors import ConfigError, DataError, MMRecError

__all__ = ["EXECUTORS", "Executor", "local_executor", "ray_executor"]

Executor = Callable[[Iterator[Unit], UnitSettings], Iterator[UnitResult]]

# A unit whose machine is lost goes to another one, so many times: machines of spot markets come and go.
_MAX_LOSSES = 20


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
    try:
        import ray
        from ray.exceptions import RayError, RayTaskError
    except ImportError as error:
        raise ConfigError("--executor ray needs Ray: pip install 'mmrec[scale]'") from error

    def result_of(reference: Any) -> UnitResult:
        try:
            return ray.get(reference)
        except RayTaskError as error:
            cause = getattr(error, "cause", None)
            raise (cause if isinstance(cause, MMRecError | OSError) else error) from None
        except RayError as error:
            reason = str(error).strip().split("\n")[0]
            raise DataError(f"the Ray cluster has lost one unit of work {_MAX_LOSSES + 1} times: {reason}") from error

    def run(units: Iterator[Unit], settings: UnitSettings) -> Iterator[UnitResult]:
        started = not ray.is_initialized()
        if started:
            ray.init(log_to_driver=False, include_dashboard=False)
        work = ray.remote(max_retries=_MAX_LOSSES)(_on_this_machine)
        running: dict[Any, int] = {}
        try:
            while True:
                # Asked each time, because clusters grow.
                room = num_workers or 2 * max(int(ray.cluster_resources().get("CPU", 1)), 1)
                for unit in itertools.islice(units, max(room - len(running), 0)):
                    running[work.remote(unit, settings)] = len(unit.items)
                if not running:
                    return
                done, _ = ray.wait(list(running))
                for reference in done:
                    result = result_of(reference)
                    progress(running.pop(reference))
                    yield result
        finally:
            for reference in running:
                ray.cancel(reference, force=True)
            if started:
                ray.shutdown()

    return run


def _on_this_machine(unit: Unit, settings: UnitSettings) -> UnitResult:
    """A unit as a task.

    Raises: DataError if the machine does not see the folders, or has other versions of what writes media.
    """
    here = f"machine {socket.gethostname()} of the cluster"
    for option, folder in (("--out", str(settings.folder)), ("--media-root", settings.root)):
        if "://" not in folder and not os.path.isdir(folder):
            raise DataError(f"{here} does not see {folder}; give an {option} in a folder that all machines share")
    found = package_versions()
    other = [f"{name} {found[name]} and not {version}" for name, version in settings.versions.items()
             if found[name] != version]  # fmt: skip
    if other:
        raise DataError(f"{here} has {', '.join(other)}, and would write other bytes; install the same on all machines")
    return _worker_here().do(unit, settings, lambda items: None)


@functools.cache
def _worker_here() -> Worker:
    """Of a process of Ray, which does one task after another; it ends with that process."""
    return Worker()


EXECUTORS: dict[str, Callable[[int | None, Callable[[int], None]], Executor]] = {
    "local": local_executor,
    "ray": ray_executor,
}
