"""Who does which unit of work, agreed on by processes of any machines that share a folder, and nothing else.

A unit is taken by making a file; whoever made it keeps it fresh from a thread. It can be taken over when its owner is
gone, which on the same machine is seen at once and from another one by a file that stays as it is for ``silence_s``;
nobody compares clocks. Leases spare double work and guarantee nothing: work must be such that it may be done twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["Leases"]

SILENCE_S = 60.0


class Leases:
    """The leases of one process; opened, it keeps them fresh; closed, it gives them back.

    Args:
        folder: where all processes keep them.
        silence_s: after so many seconds without a sign of life an owner on another machine is taken for dead.
        token: names this owner; processes that are given the same one share their leases.
    """

    def __init__(self, folder: Path, *, silence_s: float = SILENCE_S, token: str | None = None) -> None:
        self._folder = folder
        self._silence_s = silence_s
        self._owner = {"token": token or secrets.token_hex(8), **_this_process()}
        self._held: set[str] = set()
        self._seen: dict[str, tuple[bytes, int, float, float]] = {}  # content, mtime, unchanged since, watched since
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_fresh, name="leases", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        for name in list(self._held):
            self.release(name)

    def take(self, name: str) -> bool:
        """Whether the unit is this process's now: it was free, its own, or its owner is gone.

        Raises: FileNotFoundError if the folder is gone.
        """
        if self._create(name):
            return True
        found = self._look(name)
        if found is None:  # given back this moment
            return self._create(name)
        if _token(found) == self._owner["token"]:
            self._held.add(name)
            return True
        unchanged_s = time.monotonic() - self._seen[name][2]
        if _is_gone(found) or unchanged_s > self._silence_s:
            return self.seize(name)
        return False

    def watched_s(self, name: str) -> float:
        """For how long another owner has had the unit, as far as this process has seen: 0 if it has not looked."""
        return time.monotonic() - self._seen[name][3] if name in self._seen else 0.0

    def seize(self, name: str) -> bool:
        """Take a unit from the owner that was seen last; whether it is this process's now."""
        path, aside = self._folder / name, self._folder / f".{name}.{secrets.token_hex(4)}"
        expected = self._seen.pop(name, (b"",))[0]
        try:
            path.rename(aside)
        except FileNotFoundError:
            return self._create(name)
        if _read(aside) != expected:  # somebody else was quicker: it is theirs
            aside.rename(path)
            return False
        aside.unlink()
        return self._create(name)

    def holds(self, name: str) -> bool:
        """Whether the unit still is this process's."""
        found = _read(self._folder / name)
        return found is not None and _token(found) == self._owner["token"]

    def release(self, name: str) -> None:
        """Give the unit back."""
        self._held.discard(name)
        if self.holds(name):
            (self._folder / name).unlink(missing_ok=True)

    def _create(self, name: str) -> bool:
        try:
            handle = os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
        except FileExistsError:
            return False
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(json.dumps(self._owner).encode())
        except OSError:  # a full disk: half a lease would be waited for
            (self._folder / name).unlink(missing_ok=True)
            raise
        self._held.add(name)
        self._seen.pop(name, None)
        return True

    def _look(self, name: str) -> bytes | None:
        """What the lease says, and since when; None if there is none."""
        try:
            with (self._folder / name).open("rb") as file:  # opening asks a file server for what is new
                content, changed = file.read(), os.fstat(file.fileno()).st_mtime_ns
        except FileNotFoundError:
            self._seen.pop(name, None)
            return None
        now = time.monotonic()
        before = self._seen.get(name)
        if before is None or before[0] != content:
            self._seen[name] = content, changed, now, now
        elif before[1] != changed:
            self._seen[name] = content, changed, now, before[3]
        return content

    def _keep_fresh(self) -> None:
        while not self._stop.wait(self._silence_s / 6):
            for name in list(self._held):
                # A folder that does not answer is the business of whoever writes there.
                with contextlib.suppress(OSError):
                    if self.holds(name):
                        os.utime(self._folder / name)


def _this_process() -> dict[str, Any]:
    """What tells a process of this machine from all others; less where the system does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        return {}
    machine = f"{socket.gethostname()} {boot} {namespace}"
    return {"machine": machine, "pid": os.getpid(), "started": _started(os.getpid())}


def _started(pid: int) -> str | None:
    """When a process was started, in ticks; None if there is no such process, or it is one that has ended."""
    try:
        facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if facts[0] in ("Z", "X") else facts[19]


def _is_gone(content: bytes) -> bool:
    """Whether the owner was a process of this machine that is no more."""
    try:
        owner = json.loads(content)
    except ValueError:  # its maker has not written it yet, or never will
        return False
    here = _this_process()
    if not here or owner.get("machine") != here["machine"]:
        return False
    return _started(owner["pid"]) != owner["started"]


def _token(content: bytes) -> str | None:
    try:
        return json.loads(content).get("token")
    except ValueError:
        return None


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
