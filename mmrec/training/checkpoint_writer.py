"""Checkpoints are written whole or not at all, in the background: training waits for a copy, not for the disk."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from mmrec.atomic_files import flush
from mmrec.errors import CheckpointError
from mmrec.training.checkpoint import FILES, file_hash
from mmrec.training.run_mirror import RunMirror, point

__all__ = ["CheckpointWriter", "copied", "tensor_writer", "text_writer"]

Writers = Mapping[str, Callable[[Path], None]]


class CheckpointWriter:
    """Writes the checkpoints of a run, one at a time.

    A folder appears under its name only when every byte of it is on the disk; then ``latest`` moves there, then
    ``best``, and last those go that are not among the newest ``keep`` and that no link names. Only the first rank
    writes; where several ranks write parts of one checkpoint, it waits for them.

    Args:
        run: folder of the run.
        keep: how many of the newest checkpoints stay.
        mirror: where each finished checkpoint is copied to.

    Attributes:
        processor_s: processor time that writing has taken so far, which training may have missed.
        num_written: checkpoints written so far.
    """

    def __init__(self, run: Path, keep: int, mirror: RunMirror | None = None) -> None:
        self.run, self.keep, self.mirror = run, keep, mirror
        self._thread: Thread | None = None
        self._error: BaseException | None = None
        self.processor_s, self.num_written = 0.0, 0

    def folder(self, name: str) -> Path:
        """An empty folder for the files of the checkpoint, under a temporary name. Waits for the checkpoint before."""
        self.finish()
        temporary = self.run / f".{name}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        (temporary / "training_state").mkdir(parents=True)
        return temporary

    def start(self, name: str, writers: Writers, *, best: bool, parts: Future | None = None) -> None:
        """Write the files of :meth:`folder` and commit them, in the background.

        Args:
            name: of the checkpoint.
            writers: by path in the folder, what writes it; they hold copies, which training does not change.
            best: whether ``best`` moves there too.
            parts: done when other ranks have written theirs.
        """

        def work() -> None:
            try:
                began = time.thread_time()
                self._write(name, writers, best, parts)
                self.processor_s, self.num_written = self.processor_s + time.thread_time() - began, self.num_written + 1
            except BaseException as error:  # told to the one who asks next
                self._error = error

        self._thread = Thread(target=work, name=f"checkpoint {name}")
        self._thread.start()

    def finish(self) -> None:
        """Wait until nothing is being written.

        Raises: CheckpointError if the last checkpoint could not be written; the one before is whole.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            for folder in self.run.glob(".step-*.tmp"):  # makes room
                shutil.rmtree(folder, ignore_errors=True)
            if not isinstance(error, OSError | RuntimeError | SafetensorError):
                raise error
            latest = self.run / "latest"
            whole = f"the last whole one is {latest.resolve()}" if latest.exists() else "there is none before it"
            raise CheckpointError(
                f"a checkpoint of {self.run} could not be written ({error}); {whole}; make room or mend the disk, and "
                "give the same command again"
            ) from error

    def _write(self, name: str, writers: Writers, best: bool, parts: Future | None) -> None:
        temporary, folder = self.run / f".{name}.tmp", self.run / name
        for path, write in writers.items():
            (temporary / path).parent.mkdir(parents=True, exist_ok=True)
            write(temporary / path)
        if parts is not None:
            parts.result()
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        listed = {
            str(path.relative_to(temporary)): {"bytes": path.stat().st_size, "xxh3": file_hash(path)} for path in files
        }
        (temporary / FILES).write_text(json.dumps(listed, indent=1))
        for path in (temporary, *temporary.rglob("*")):
            flush(path)
        # Left by a run that was killed before `latest` moved here; that run went on from an earlier checkpoint.
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
        flush(self.run)
        point(self.run / "latest", folder)
        if best:
            point(self.run / "best", folder)
        linked = {(self.run / link).resolve().name for link in ("latest", "best") if (self.run / link).exists()}
        others = sorted(other for other in self.run.glob("step-*") if other.name <= folder.name)
        for old in [*others[: -self.keep], *(o for o in self.run.glob("step-*") if o.name > folder.name)]:
            if old.name not in linked:
                shutil.rmtree(old)
        if self.mirror is not None:
            self.mirror.upload()


def copied(value: Any) -> Any:
    """The same dictionaries and lists with copies of their tensors on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: copied(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(copied(entry) for entry in value)
    return value


def tensor_writer(value: Any) -> Callable[[Path], None]:
    """Writes what ``checkpoint.load_tensors`` reads."""
    return lambda path: torch.save(value, path)


def text_writer(text: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(text)  # pyright: ignore[reportReturnType]
