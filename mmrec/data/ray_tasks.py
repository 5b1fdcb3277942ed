"""Units of work as tasks of a Ray cluster whose machines share folders."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from mmrec.data.units import package_versions
from mmrec.errors import ConfigError, DataError, MMRecError

__all__ = ["on_ray", "refuse_other_machine"]

# A unit whose machine is lost goes to another one, so many times: machines of spot markets come and go.
_MAX_LOSSES = 20

Unit = TypeVar("Unit")
Result = TypeVar("Result")


def on_ray(
    work: Callable[[Unit], Result], units: Iterator[Unit], num_workers: int | None
) -> Iterator[tuple[Unit, Result]]:
    """Do units on the cluster of RAY_ADDRESS, else on one of this machine; what a lost machine had is done again.

    Args:
        work: a function of a module, or a partial of one.
        num_workers: tasks at once; None: as many as the cluster has CPUs, and as many waiting.

    Returns: units and results, in the order in which they are done.

    Raises: ConfigError if Ray is not installed; DataError if a unit is lost again and again; what ``work`` raises, if
        it speaks to the user.
    """
    try:
        import ray
        from ray.exceptions import RayError, RayTaskError
    except ImportError as error:
        raise ConfigError("--executor ray needs Ray: pip install 'mmrec[scale]'") from error

    def result_of(reference: Any) -> Any:
        try:
            return ray.get(reference)
        except RayTaskError as error:
            cause = getattr(error, "cause", None)
            raise (cause if isinstance(cause, MMRecError | OSError) else error) from None
        except RayError as error:
            reason = str(error).strip().split("\n")[0]
            raise DataError(f"the Ray cluster has lost one unit of work {_MAX_LOSSES + 1} times: {reason}") from error

    started = not ray.is_initialized()
    if started:
        ray.init(log_to_driver=False, include_dashboard=False)
    task = ray.remote(max_retries=_MAX_LOSSES)(_do)
    running: dict[Any, Unit] = {}
    try:
        while True:
            # Asked each time, because clusters grow.
            room = num_workers or 2 * max(int(ray.cluster_resources().get("CPU", 1)), 1)
            for unit in itertools.islice(units, max(room - len(running), 0)):
                running[task.remote(work, unit)] = unit
            if not running:
                return
            done, _ = ray.wait(list(running))
            for reference in done:
                result = result_of(reference)
                yield running.pop(reference), result
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
        if started:
            ray.shutdown()


def _do(work: Callable[[Any], Any], unit: Any) -> Any:
    return work(unit)


def refuse_other_machine(folders: Mapping[str, str], versions: Mapping[str, str]) -> None:
    """Refuse work for a machine that would not do it as the others do.

    Args:
        folders: by the option that names it, a folder that has to be seen, or a URL.
        versions: of the packages that decide the bytes, by name.

    Raises: DataError if this machine does not see a folder, or has other versions.
    """
    here = f"machine {socket.gethostname()} of the cluster"
    for option, folder in folders.items():
        if "://" not in folder and not os.path.isdir(folder):
            raise DataError(f"{here} does not see {folder}; give {_an(option)} in a folder that all machines share")
    found = package_versions()
    other = [f"{name} {found[name]} and not {version}" for name, version in versions.items() if found[name] != version]
    if other:
        raise DataError(f"{here} has {', '.join(other)}, and would write other bytes; install the same on all machines")


def _an(option: str) -> str:
    return f"{'an' if option.lstrip('-')[0] in 'aeiou' else 'a'} {option}"
