"""A run at a URL: it works in a local folder, and every checkpoint that is committed there is copied to the URL.

Object stores have no rename: a checkpoint counts when ``latest`` (a small file with its name) says so, which is
written after all of its files. Anything that fsspec knows will do: ``s3://``, ``gs://``, ``memory://``; credentials are
found as its drivers find them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from mmrec.errors import CheckpointError, ConfigError

__all__ = ["RunMirror", "fetch_run", "is_url", "local_run"]

LINKS = ("latest", "best")
# Files of the run itself; the others belong to checkpoints.
RUN_FILES = ("metrics.jsonl", "cost.json", "finished.json")


def is_url(path: Path | str) -> bool:
    """Whether a path is a URL, also one that went through ``Path``, which makes one slash of two."""
    return re.match(r"[a-z][a-z0-9+.-]+:/", str(path)) is not None


def local_run(url: str) -> Path:
    """The folder on this machine in which the run at a URL works."""
    cache = Path(os.environ.get("MMREC_CACHE", Path.home() / ".cache" / "mmrec"))
    return cache / "runs" / hashlib.sha256(_whole(url).encode()).hexdigest()[:16]


def fetch_run(url: str) -> Path:
    """Copy the run at a URL here, as far as it is not here yet; its local folder.

    Raises: CheckpointError if there is none.
    """
    mirror = RunMirror(url)
    mirror.download()
    return mirror.local


class RunMirror:
    """Both sides of a run at a URL.

    Args:
        url: where the run lies.

    Raises: ConfigError if no driver for such a URL is installed.
    """

    def __init__(self, url: str) -> None:
        import fsspec

        self.url, self.local = _whole(url), local_run(url)
        try:
            self._files, self._root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"{self.url} cannot be opened: {error}") from error

    def upload(self) -> None:
        """Make the URL what the local folder is: new checkpoints, then the links, then what is no longer there."""
        there = self._checkpoints()
        here = {folder.name for folder in self.local.glob("step-*")}
        for name in sorted(here):
            listed = (self.local / name / "files.json").read_bytes()
            if name in there and self._read(f"{name}/files.json") == listed:
                continue
            for file in json.loads(listed):
                self._files.put_file(str(self.local / name / file), self._at(f"{name}/{file}"))
            self._files.pipe_file(self._at(f"{name}/files.json"), listed)
        for link in LINKS:
            if (self.local / link).exists():
                self._files.pipe_file(self._at(link), (self.local / link).resolve().name.encode())
        for file in RUN_FILES:
            if (self.local / file).is_file():
                self._files.put_file(str(self.local / file), self._at(file))
        preprocessing = self.local / "preprocessing"
        if preprocessing.is_dir() and not self._files.exists(self._at("preprocessing/complete")):
            for path in sorted(preprocessing.rglob("*"), key=lambda path: path.name == "complete"):
                if path.is_file():
                    self._files.put_file(str(path), self._at(f"preprocessing/{path.relative_to(preprocessing)}"))
        for name in there - here:
            self._files.rm(self._at(name), recursive=True)

    def download(self, *, required: bool = True) -> None:
        """Copy the run from the URL, unless the local folder is as new.

        Raises: CheckpointError if ``required`` and there is no run at the URL.
        """
        names = {link: name.decode() for link in LINKS if (name := self._read(link)) is not None}
        if "latest" not in names:
            if required:
                raise CheckpointError(f"{self.url} holds no checkpoint; give the URL of a run of `mmrec train`")
            return
        self.local.mkdir(parents=True, exist_ok=True)
        for name in sorted(set(names.values())):
            listed = self._read(f"{name}/files.json")
            if listed is None:
                raise CheckpointError(f"{self.url}/{name} is not whole: files.json is missing")
            folder = self.local / name
            if (folder / "files.json").is_file() and (folder / "files.json").read_bytes() == listed:
                continue
            temporary = self.local / f".{name}.tmp"
            shutil.rmtree(temporary, ignore_errors=True)
            for file in json.loads(listed):
                (temporary / file).parent.mkdir(parents=True, exist_ok=True)
                self._files.get_file(self._at(f"{name}/{file}"), str(temporary / file))
            (temporary / "files.json").write_bytes(listed)
            shutil.rmtree(folder, ignore_errors=True)
            temporary.rename(folder)
        for link, name in names.items():
            point(self.local / link, self.local / name)
        self._download_run_files()

    def _download_run_files(self) -> None:
        for file in RUN_FILES:
            if (content := self._read(file)) is not None:
                (self.local / file).write_bytes(content)
        if self._files.exists(self._at("preprocessing/complete")):
            self._files.get(self._at("preprocessing"), str(self.local / "preprocessing"), recursive=True)

    def _checkpoints(self) -> set[str]:
        if not self._files.exists(self._root):
            return set()
        names = (Path(entry).name for entry in self._files.ls(self._root, detail=False, refresh=True))
        return {name for name in names if name.startswith("step-")}

    def _read(self, name: str) -> bytes | None:
        try:
            content: Any = self._files.cat_file(self._at(name))
        except FileNotFoundError:
            return None
        return content

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"


def point(link: Path, folder: Path) -> None:
    """Move a relative symbolic link in one step."""
    temporary = link.with_name(f".{link.name}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(folder.name)
    temporary.replace(link)


def _whole(url: str) -> str:
    scheme, _, rest = str(url).partition(":")
    return f"{scheme}://{rest.lstrip('/')}".rstrip("/")
