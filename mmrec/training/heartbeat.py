"""Each process tells the others that it is there, so that those who wait in vain can say for whom.

A process that is killed leaves the others in a message that never comes, and an error of the network that names nobody.
"""

from __future__ import annotations

import datetime
import logging
import os
import socket
import threading
import time
from types import TracebackType
from typing import Self

import torch.distributed as dist

from mmrec.distributed import rank, world_size
from mmrec.errors import TrainingError

__all__ = ["Heartbeat"]

logger = logging.getLogger(__name__)

INTERVAL_S = 1.0
# A process that has not been heard of for so long is taken for dead.
SILENCE_S = 5.0


class Heartbeat:
    """While it is open, this process counts up a number in the store of the launcher once a second.

    With torchrun and accelerate the store belongs to the launcher and outlives the processes. Where there is none, or
    one process only, it does nothing.
    """

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._name = f"rank {rank()} ({socket.gethostname()}, process {os.getpid()})"
        address, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
        self._place = (address, int(port)) if world_size() > 1 and address and port else None

    def __enter__(self) -> Self:
        if self._place is not None:
            self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._place is not None and not isinstance(error, KeyboardInterrupt):
            silent = None
            if isinstance(error, RuntimeError):  # what the network raises has no class of its own everywhere
                silent = self._silent()
            if silent:
                raise TrainingError(
                    f"{silent} is gone, so {self._name} stops too; look at its messages (killed for memory?), and give "
                    "the same command again: it goes on from the last checkpoint"
                ) from error
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _store(self) -> dist.TCPStore:  # pyright: ignore[reportPrivateImportUsage]
        assert self._place is not None
        return dist.TCPStore(  # pyright: ignore[reportPrivateImportUsage]
            *self._place, world_size=None, is_master=False, timeout=datetime.timedelta(seconds=SILENCE_S)
        )

    def _beat(self) -> None:
        try:
            store = self._store()
            store.set(f"mmrec/name/{rank()}", self._name)
            while not self._stop.wait(INTERVAL_S):
                store.add(f"mmrec/beat/{rank()}", 1)
        except (RuntimeError, ValueError) as error:  # the launcher has gone, and with it whoever could ask
            logger.debug("no heartbeat: %s", error)

    def _silent(self) -> str:
        """The processes whose number does not move, by name."""
        try:
            store = self._store()
            others = [other for other in range(world_size()) if other != rank()]
            before = {other: store.add(f"mmrec/beat/{other}", 0) for other in others}
            time.sleep(SILENCE_S)
            still = [other for other in others if store.add(f"mmrec/beat/{other}", 0) == before[other]]
            return ", ".join(store.get(f"mmrec/name/{other}").decode() for other in still)
        except (RuntimeError, ValueError) as error:
            logger.debug("no heartbeat of the others: %s", error)
            return ""
