"""The folder of an export while it is being written, by one process or many that know nothing of each other.

Beside what is finished, ``OUT/unfinished/`` holds::

    plan.json            all that must be equal for processes to work on the same export
    done/part-00000.json its line of the manifest, written when the part is on the disk; so too of users
    leases/              who is writing which part (mmrec/data/leases.py)
    scratch/             files that are being written
    replacing            from --overwrite until everything old is gone

It goes away when the manifest is written.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mmrec.atomic_files import as_json, commit, flush, write_json
from mmrec.data.leases import Leases
from mmrec.errors import DataError
from mmrec.export_folder import MANIFEST, SCHEMA, SCHEMA_VERSION, UNFINISHED, files_of

__all__ = ["Lost", "Workplace"]

# Between two looks at what other processes do.
POLL_S = 0.05
# What the folder is renamed to before it goes.
_GONE = ".finished-"


class Lost(Exception):  # noqa: N818 - no error: another process does the work
    """The unit was taken over by another process, or the whole export is finished."""


class Workplace:
    """The folder ``out`` of an export, from its beginning to its manifest.

    Args:
        out: export folder.
        identity: all that must be equal for the parts of another process, or an earlier one, to be parts of this one.
    """

    def __init__(self, out: Path, identity: dict[str, Any]) -> None:
        self.out = out
        self.identity = identity
        self._folder = out / UNFINISHED
        self.leases = self._folder / "leases"

    def begin(self, *, overwrite: bool) -> None:
        """Join an export that others have begun, or begin one.

        Raises: DataError if the folder holds something else, which ``overwrite`` may replace if it is an export.
        """
        if self._state(overwrite) == "join":
            return
        try:
            for name in ("leases", "scratch", "done"):
                (self._folder / name).mkdir(parents=True, exist_ok=True)
            with Leases(self.leases) as leases:
                while not leases.take("begin"):
                    time.sleep(POLL_S)
                    if self._state(overwrite) == "join":
                        return
                state = self._state(overwrite)
                if state == "replace":
                    self._clear()
                if state != "join":
                    write_json(self._folder / "plan.json", self.identity)
        except OSError as error:
            raise self.cannot_write(error) from error

    def _state(self, overwrite: bool) -> Literal["join", "begin", "replace"]:
        for _ in range(3):  # what others change between two looks can seem to be nobody's
            found = self._found()
            if found is not None:
                break
            time.sleep(POLL_S)
        else:
            raise DataError(f"{self.out} exists and is no export; choose another --out")
        if isinstance(found, str):
            return found
        is_unfinished = found == self._read("plan.json")
        if self._same(found) and (is_unfinished or not overwrite):
            return "join" if is_unfinished else "begin"
        if overwrite:
            return "replace"
        raise DataError(
            f"{self.out} holds {_what(found)}, this is {_what(self.identity)}; choose another --out, or --overwrite "
            "replaces it"
        )

    def _found(self) -> dict[str, Any] | Literal["begin", "replace"] | None:
        """The plan or manifest that is there, or what to do without one; None if something else is there."""
        is_empty = self._is_empty()  # first: who has begun meanwhile has a plan
        plan = self._read("plan.json")
        if plan is not None:
            return plan
        if (self._folder / "replacing").is_file():
            return "replace"
        return self._manifest() or ("begin" if is_empty else None)

    def _same(self, manifest: dict[str, Any]) -> bool:
        return all(manifest.get(key) == value for key, value in self.identity.items())

    def _is_empty(self) -> bool:
        """Whether nothing is there but what a process leaves that is killed while it begins."""
        if not self.out.exists():
            return True
        names = {path.name for path in self.out.iterdir()} if self.out.is_dir() else {"a file"}
        if any(name != UNFINISHED and not name.startswith(_GONE) for name in names):
            return False
        begun = {"leases", "scratch", "done", ".plan.json.tmp"}
        return UNFINISHED not in names or {path.name for path in self._folder.iterdir()} <= begun

    def _manifest(self) -> dict[str, Any] | None:
        """That of a finished export; None if there is none. Raises: DataError if it is damaged or something else's."""
        if not (self.out / MANIFEST).is_file():
            return None
        data = (self.out / MANIFEST).read_bytes()
        try:
            manifest = json.loads(data)
        except ValueError as error:
            place = self.out / MANIFEST
            raise DataError(f"{place} is damaged ({error}); remove {self.out} or choose another --out") from error
        if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
            raise DataError(f"{self.out} exists and is no export; choose another --out")
        return manifest

    def _clear(self) -> None:
        """Remove everything old; the manifest first, so that nobody takes what is left for an export."""
        (self._folder / "replacing").touch()
        (self.out / MANIFEST).unlink(missing_ok=True)
        (self._folder / "plan.json").unlink(missing_ok=True)
        for path in (*self.out.iterdir(), self._folder / "done"):
            if path != self._folder:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        for lease in self.leases.iterdir():  # of whoever still writes what is replaced
            if lease.name != "begin":
                lease.unlink(missing_ok=True)
        (self._folder / "done").mkdir()

    def former(self) -> dict[str, Any] | None:
        """The manifest of the same export, finished before and now looked through; None if there is none."""
        manifest = self._manifest()
        return None if manifest is None or not self._same(manifest) else manifest

    def is_over(self) -> bool:
        """Whether the export is finished, or another one has taken its place."""
        return self._read("plan.json") != self.identity

    def entry(self, unit: str) -> dict[str, Any] | None:
        """What is known of a finished unit; None if it is not finished."""
        try:
            return self._read(f"done/{unit}.json")
        except DataError:  # not written out when the machine went down
            return None

    def enter(self, unit: str, entry: dict[str, Any], may: Callable[[], bool]) -> None:
        """Note that a unit is finished. Raises: Lost if ``may`` says no."""
        data = json.dumps(entry, sort_keys=True).encode()
        self._note(f"{unit}.json", lambda path: path.write_bytes(data), may)

    def _note(self, name: str, write: Callable[[Path], object], may: Callable[[], bool] = lambda: True) -> None:
        """A file of ``done``; not flushed, for whoever finishes looks at what it says of others."""
        scratch = self._folder / "scratch" / f"{secrets.token_hex(8)}-{name}"
        try:
            write(scratch)
            if not may():
                raise Lost
            scratch.replace(self._folder / "done" / name)
        except OSError as error:
            if self.is_over():
                raise Lost from error
            raise self.cannot_write(error, f"{UNFINISHED}/done/{name}") from error

    def withdraw(self, unit: str) -> None:
        """A unit is not finished after all."""
        (self._folder / "done" / f"{unit}.json").unlink(missing_ok=True)

    def commit(
        self, name: str, write: Callable[[Path], object], may: Callable[[], bool] = lambda: True
    ) -> dict[str, Any]:
        """Write a file so that it appears under its name whole or not at all; return its size and sha256.

        Args:
            may: asked last, whether the file may still be written.

        Raises:
            Lost: if it may not, or the whole export is over.
            DataError: if it cannot be written, such as on a full disk.
        """
        path = self.out / name
        # PyTorch writes the name of a file into it.
        scratch = self._folder / "scratch" / secrets.token_hex(8) / path.name

        def go_on() -> None:
            if not may():
                raise Lost

        try:
            scratch.parent.mkdir()
            return commit(path, write, temporary=scratch, before=go_on, flush_folder=False)
        except Exception as error:  # each library has classes of its own
            if not isinstance(error, Lost) and self.is_over():
                raise Lost from error
            if isinstance(error, OSError):
                raise self.cannot_write(error, name) from error
            raise
        finally:
            shutil.rmtree(scratch.parent, ignore_errors=True)

    def finish(self, manifest: dict[str, Any], may: Callable[[], bool]) -> None:
        """Write the manifest and remove what only the making needed. Raises: Lost if ``may`` says no."""
        text = as_json(manifest)
        for folder in {(self.out / name).parent for name in files_of(manifest)}:
            flush(folder)
        self.commit(MANIFEST, lambda path: path.write_text(text, encoding="utf-8"), may)
        flush(self.out)
        self.remove()

    def remove(self) -> None:
        """Remove what only the making needed, also what a process left that was killed at this."""
        with contextlib.suppress(FileNotFoundError):
            # At once, so that nobody begins a new file in it.
            self._folder.rename(self.out / f"{_GONE}{secrets.token_hex(4)}")
        for gone in self.out.glob(f"{_GONE}*"):
            shutil.rmtree(gone, ignore_errors=True)
        for temporary in self.out.glob(".*.tmp"):
            temporary.unlink(missing_ok=True)

    def keep_sample(self, unit: str, values: np.ndarray) -> None:
        """Keep numbers that only the making needs."""

        def write(path: Path) -> None:
            with path.open("wb") as file:
                np.save(file, values)
            flush(path)  # nobody looks at it before it is needed

        self._note(f"{unit}.npy", write)

    def sample(self, unit: str) -> np.ndarray | None:
        """What :meth:`keep_sample` kept; None if nothing is there."""
        path = self._folder / "done" / f"{unit}.npy"
        return np.load(path) if path.is_file() else None

    def _read(self, name: str) -> Any:
        try:
            return json.loads((self._folder / name).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            place = self._folder / name
            raise DataError(f"{place} is damaged ({error}); remove {self.out} or choose another --out") from error

    def cannot_write(self, error: OSError, name: str = "") -> DataError:
        """What to tell of a file that cannot be written, such as on a full disk."""
        place = self.out / name if name else self.out
        return DataError(
            f"{place} cannot be written: {error.strerror or error}; make room or give another --out, and run the same "
            "command again: it goes on"
        )


def _what(ledger: dict[str, Any]) -> str:
    if ledger.get("schema_version") != SCHEMA_VERSION:
        return f"version {ledger.get('schema_version')} of the export format"
    data = ledger["dataset"]
    return (
        f"model {ledger['model_hash'][:12]} on dataset {data['name']!r} ({data['fingerprint'][:12]}) as "
        f"{ledger['dtype']} in {ledger['format']} parts of {ledger['shard_items']:,}"
    )
