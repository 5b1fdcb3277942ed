"""Threads that compute answers, so that the event loop stays free; the number of requests in them is bounded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from mmrec.serving.refusals import RefusedError

__all__ = ["Workers"]

Result = TypeVar("Result")


class Workers:
    """A pool of threads with a bounded queue.

    Args:
        num_threads: threads.
        max_requests: calls that run or wait, at most.
    """

    def __init__(self, num_threads: int, max_requests: int) -> None:
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="answer", initializer=_one_thread_each)
        self._lock = threading.Lock()
        self._max_requests = max_requests
        self._num_requests = 0

    async def run(self, function: Callable[..., Result], *args: object) -> Result:
        """``function(*args)`` in a thread. Cancelled, it is not begun any more; once begun it is finished unheard.

        Raises: RefusedError (429) if ``max_requests`` calls run or wait.
        """
        with self._lock:
            if self._num_requests >= self._max_requests:
                raise RefusedError(429, f"{self._max_requests} requests are being answered; try again in a second")
            self._num_requests += 1
        try:
            future = self._pool.submit(function, *args)
        except BaseException:
            self._leave()
            raise
        future.add_done_callback(self._leave)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Wait for what runs; what waits is dropped."""
        self._pool.shutdown(cancel_futures=True)

    def _leave(self, _: Future[Any] | None = None) -> None:
        with self._lock:
            self._num_requests -= 1


def _one_thread_each() -> None:
    """Requests run beside each other; inside one, torch and FAISS use one thread (OpenMP counts them by thread)."""
    import faiss
    import torch

    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
