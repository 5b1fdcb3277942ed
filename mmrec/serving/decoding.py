"""Uploads are decoded in processes of their own: one that crashes, hangs or eats memory costs its request alone."""

from __future__ import annotations

import threading
from typing import Any

from mmrec.media.isolated import IsolatedDecoder
from mmrec.modality_encoders import Preprocessing

__all__ = ["UploadDecoder"]

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
    """Makes an encoder's input of an upload, in another process; of anything else here.

    Args:
        timeout_s: longest time of one file.
        num_processes: how many are started by :meth:`start`.
    """

    def __init__(self, timeout_s: float, num_processes: int) -> None:
        self._isolated = IsolatedDecoder(timeout_s, _MEMORY_BYTES, imports=_IMPORTS)
        self._num_processes = num_processes

    def __call__(self, preprocessing: Preprocessing, raw: Any) -> Any:
        """Raises: MediaError if the file cannot be used; IsolationError if it does harm to its decoder."""
        return self._isolated(_prepare, preprocessing, raw) if isinstance(raw, bytes) else preprocessing(raw)

    def start(self) -> None:
        """Start all processes: their imports take seconds, which no request should wait for."""
        started = threading.Barrier(self._num_processes)
        threads = [threading.Thread(target=self._start_one, args=(started,)) for _ in range(self._num_processes)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _start_one(self, started: threading.Barrier) -> None:
        started.wait()
        self._isolated(_prepare, len, b"")

    def close(self) -> None:
        """End all processes."""
        self._isolated.close()


def _prepare(preprocessing: Any, raw: bytes) -> Any:
    return preprocessing(raw)
