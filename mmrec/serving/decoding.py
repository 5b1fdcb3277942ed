"""Uploads are decoded in processes of their own: one that crashes, hangs or eats memory costs its request alone."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from mmrec.media.isolated import IsolatedDecoder, IsolationError

__all__ = ["UploadDecoder"]

logger = logging.getLogger(__name__)

# What one decoder may allocate beyond what it has after its imports: twice what the worst of a thousand damaged files
# took in tests/media/test_mutations.py.
_MEMORY_BYTES = 2 << 30
_IMPORTS = (
    "av",
    "scipy.signal",
    "soundfile",
    "mmrec.media.audio",
    "mmrec.media.image",
    "mmrec.media.video",
    "mmrec.modality_encoders",
)


class UploadDecoder:
    """Makes an encoder's input of an upload, in another process.

    Args:
        timeout_s: longest time of one file.
        num_processes: how many :meth:`start` starts; without it each upload that finds none idle does.
    """

    def __init__(self, timeout_s: float, num_processes: int) -> None:
        self._isolated = IsolatedDecoder(timeout_s, _MEMORY_BYTES, imports=_IMPORTS)
        self._num_processes = num_processes

    def __call__(self, preprocessing: Callable[[bytes], Any], data: bytes) -> Any:
        """What the preprocessing makes of the file.

        Raises: MediaError if the file cannot be used; IsolationError if it does harm to its decoder.
        """
        return self._isolated(_prepare, preprocessing, data)

    def start(self) -> None:
        """Start the processes, in threads: their imports take seconds, for which the server does not wait."""
        for _ in range(self._num_processes):  # each call takes a process that is idle, or a new one
            threading.Thread(target=self._start_one, daemon=True).start()

    def _start_one(self) -> None:
        try:
            self._isolated(_prepare, len, b"")
        except (IsolationError, RuntimeError) as error:  # an upload will try again, and tell its client
            logger.error("a process for decoding uploads has not started: %s", error)

    def close(self) -> None:
        """End all processes."""
        self._isolated.close()


def _prepare(preprocessing: Callable[[bytes], Any], data: bytes) -> Any:
    return preprocessing(data)
