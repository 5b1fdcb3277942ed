"""Decoding in a process of its own: a crash, an endless loop or a flood of memory costs one item and not the job."""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, Pipe
from typing import Any, TypeVar

from mmrec.errors import MediaError, MMRecError

__all__ = ["IsolatedDecoder", "IsolationError"]

Result = TypeVar("Result")

# A child is given this long to start and to import what it needs; that is no item's fault.
_START_S = 120.0
# A child whose parent was killed ends itself this long after its item's time, or within this time if it is idle.
_GRACE_S = 10.0
# How often a waiting process looks whether the other one still lives.
_POLL_S = 0.5


class IsolationError(MediaError):
    """A file at which the decoder crashed, took too long or ran out of memory."""


class IsolatedDecoder:
    """Calls functions in child processes that are kept between calls.

    There are as many children as threads call at once. Use it as a context manager, or call ``close``. It may be
    pickled and forked; a copy in another process has children of its own. The children are plain new interpreters, so
    that neither the caller's main module is run again nor its threads and locks are inherited.

    Args:
        timeout_s: longest time of one call, starting and importing not counted.
        memory_bytes: what a child may allocate beyond what it has after its imports. Held by the kernel on Linux; no
            limit elsewhere.
        imports: modules that a child imports before its first call, for functions that import late.
    """

    def __init__(self, timeout_s: float, memory_bytes: int, *, imports: Sequence[str] = ()) -> None:
        self._settings = (float(timeout_s), int(memory_bytes), tuple(imports))
        self._forget_children()

    def __call__(self, function: Callable[..., Result], *args: Any) -> Result:
        """``function(*args)`` in a child; the function has to be importable, arguments and result picklable.

        Raises:
            IsolationError: if the child crashes, takes longer than ``timeout_s`` or runs out of memory.
            Exception: whatever ``function`` raises; MediaError, for one, with its message.
            RuntimeError: if no child can be started.
        """
        child = self._take()
        try:
            succeeded, value = child.call(function, args)
        except BaseException:
            child.kill()
            raise
        with self._lock:
            if not self._closed:
                self._idle.append(child)
                child = None
        if child is not None:
            child.kill()
        if not succeeded:
            raise value
        return value

    def close(self) -> None:
        """End all children; those at work end with their call."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for child in idle:
            child.kill()

    def __enter__(self) -> IsolatedDecoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        timeout_s, memory_bytes, imports = self._settings
        return _unpickled, (timeout_s, memory_bytes, imports)

    def _take(self) -> _Child:
        if self._pid != os.getpid():  # forked: the children, and perhaps a held lock, are those of the other process
            self._forget_children()
        with self._lock:
            if self._closed:
                raise RuntimeError("this IsolatedDecoder is closed")
            child = self._idle.pop() if self._idle else None
        if child is not None and child.is_alive:
            return child
        if child is not None:
            child.kill()
        return _Child(*self._settings)

    def _forget_children(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._idle: list[_Child] = []
        self._closed = False


def _unpickled(timeout_s: float, memory_bytes: int, imports: tuple[str, ...]) -> IsolatedDecoder:
    return IsolatedDecoder(timeout_s, memory_bytes, imports=imports)


class _Child:
    """The parent's side of one child.

    Messages are a pickled function, answered when it is imported, and tuples of arguments, answered with what it gives.
    """

    def __init__(self, timeout_s: float, memory_bytes: int, imports: tuple[str, ...]) -> None:
        self._timeout_s = timeout_s
        self._function: Callable[..., Any] | None = None
        self._connection, theirs = Pipe()
        with theirs:
            job = f"_serve({theirs.fileno()}, {timeout_s!r}, {memory_bytes!r}, {imports!r})"
            code = f"import sys; sys.path[:] = {sys.path!r}; from mmrec.media.isolated import _serve; {job}"
            one_thread = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=os.environ | one_thread,
            )

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def call(self, function: Callable[..., Any], args: tuple[Any, ...]) -> tuple[bool, Any]:
        if function is not self._function:
            succeeded, value = self._ask(pickle.dumps(function), _START_S)
            if not succeeded:
                return False, value
            self._function = function
        return self._ask(args, self._timeout_s)

    def _ask(self, message: Any, timeout_s: float) -> tuple[bool, Any]:
        """Whether it went well, and the result or the exception."""
        end = time.monotonic() + timeout_s
        try:
            self._connection.send(message)
            while not self._connection.poll(max(min(_POLL_S, end - time.monotonic()), 0.0)):
                if time.monotonic() >= end:
                    raise self._failure(f"took longer than {timeout_s:g} s")
                # Another process, forked meanwhile, may hold the child's end open: then no end of file would come.
                if not self.is_alive and not self._connection.poll(0.0):
                    raise self._failure(self._cause())
            succeeded, value = self._connection.recv()
        except (EOFError, ConnectionError) as error:
            raise self._failure(self._cause()) from error
        if isinstance(value, IsolationError):
            raise value
        return succeeded, value

    def _failure(self, cause: str) -> Exception:
        if self._function is None:
            return RuntimeError(f"the process for decoding did not start: {cause}")
        return IsolationError(cause)

    def _cause(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_S)
        code = self._process.returncode
        if code is None or code >= 0:
            return f"the decoder crashed (exit code {code})"
        name = signal.Signals(-code).name
        if name == "SIGKILL":
            return "the decoder was killed (SIGKILL), as the system does when memory runs out"
        return f"the decoder crashed ({name})"

    def kill(self) -> None:
        self._connection.close()
        self._process.kill()
        self._process.wait()


def _serve(descriptor: int, timeout_s: float, memory_bytes: int, imports: tuple[str, ...]) -> None:
    """The child's side."""
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group, they are for the parent
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    parent = os.getppid()
    function: Callable[..., Any] | None = None
    with Connection(descriptor) as connection:
        while True:
            while not connection.poll(_GRACE_S / 2):
                if os.getppid() != parent:
                    return
            # Ends the process in the midst of any foreign code, should the parent not be there to do it.
            signal.setitimer(signal.ITIMER_REAL, (_START_S if function is None else timeout_s) + _GRACE_S)
            try:
                message = connection.recv()
                if isinstance(message, tuple):
                    assert function is not None
                    reply = (True, function(*message))
                else:
                    _limit_memory(None)
                    function, reply = pickle.loads(message), (True, None)  # which imports its module
                    for name in imports:
                        importlib.import_module(name)
                    _limit_memory(memory_bytes)
                    _silence_decoders()
                connection.send(reply)
            except (EOFError, ConnectionError):
                return
            except MemoryError:
                connection.send((False, IsolationError("ran out of memory")))
                return
            except Exception as error:
                connection.send((False, _portable(error)))
            signal.setitimer(signal.ITIMER_REAL, 0.0)


def _silence_decoders() -> None:
    """libjpeg and libtiff write on standard error what they think of a file, without its name; results say enough."""
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)


def _limit_memory(num_bytes: int | None) -> None:
    """Allow ``num_bytes`` more of private memory than there is now; None lifts the limit."""
    if not sys.platform.startswith("linux"):
        return
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[5]) * resource.getpagesize()
    soft = hard if num_bytes is None else now + num_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _portable(error: Exception) -> Exception:
    """The exception; a defect with its traceback as a note, or in words where it does not survive pickling."""
    if isinstance(error, MMRecError):
        return error
    error.add_note("in the process for decoding:\n" + "".join(traceback.format_exception(error)))
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:  # whatever an exception's own constructor makes of it
        return RuntimeError("".join(traceback.format_exception(error)))
