"""Where a model is pushed to and pulled from: a folder of this machine, a URL, the Hugging Face hub.

In each the file ``pushed.json`` stands for the whole: it comes last, or together with all others.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmrec.data.store import Store, url_of
from mmrec.errors import ConfigError, DataError

__all__ = ["PUSHED", "Place", "place_of"]

PUSHED = "pushed.json"
_HUB = "hf://"


def place_of(text: str, *, public: bool = False) -> Place:
    """A folder, a URL that fsspec knows, or hf://USER/NAME.

    Raises: ConfigError if it is a URL of the hub without user and name.
    """
    url = url_of(text)
    if url is None:
        return _Folder(Path(text))
    if not url.startswith(_HUB):
        return _Url(url)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name := url.removeprefix(_HUB)) is None:
        raise ConfigError(f"{text} is no repository of the hub; give hf://USER/NAME")
    return _Hub(name, public)


class Place(ABC):
    """Args: name: as errors say it."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def listing(self) -> str | None:
        """The content of ``pushed.json``; None if there is none."""

    @abstractmethod
    def read(self, name: str, target: Path) -> None:
        """Copy a file to ``target``. Raises: DataError if it is missing, or the place does not answer."""

    @abstractmethod
    def write(self, files: Mapping[str, Path], listing: str, done: Callable[[str], None]) -> None:
        """Replace what was pushed there.

        Args:
            files: by path in the place, where each lies now.
            listing: the content of ``pushed.json``.
            done: called with the name of each file that has arrived.

        Raises: DataError if the place holds something else, or does not answer.
        """


class _Folder(Place):
    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def listing(self) -> str | None:
        path = self._path / PUSHED
        return path.read_text(encoding="utf-8") if path.is_file() else None

    def read(self, name: str, target: Path) -> None:
        if not (self._path / name).is_file():
            raise DataError(f"{self._path / name} is missing; push again")
        shutil.copyfile(self._path / name, target)

    def write(self, files: Mapping[str, Path], listing: str, done: Callable[[str], None]) -> None:
        if self._path.exists() and self.listing() is None and (not self._path.is_dir() or any(self._path.iterdir())):
            raise DataError(_something_else(self.name))
        temporary = self._path.with_name(f".{self._path.name}.pushing")
        shutil.rmtree(temporary, ignore_errors=True)
        for name, path in files.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, temporary / name)
            done(name)
        (temporary / PUSHED).write_text(listing, encoding="utf-8")
        if self._path.exists():
            shutil.rmtree(self._path)
        temporary.rename(self._path)


class _Url(Place):
    # Written first: it tells what an interrupted push left from what is somebody else's.
    _BEGUN = "pushing.json"

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._store = Store(url)

    def listing(self) -> str | None:
        return self._read(PUSHED)

    def read(self, name: str, target: Path) -> None:
        try:
            target.write_bytes(self._store.read(name))
        except FileNotFoundError as error:
            raise DataError(f"{self.name}/{name} is missing; push again") from error

    def write(self, files: Mapping[str, Path], listing: str, done: Callable[[str], None]) -> None:
        before = self.listing() or self._read(self._BEGUN)
        if before is None and not self._store.is_empty():
            raise DataError(_something_else(self.name))
        with tempfile.TemporaryDirectory() as folder:
            (mark := Path(folder) / PUSHED).write_text(listing, encoding="utf-8")
            self._store.put(self._BEGUN, mark)
            self._store.remove(PUSHED)
            for name, path in files.items():
                self._store.put(name, path)
                done(name)
            for name in _names(before) - files.keys():
                self._store.remove(name)
            self._store.put(PUSHED, mark)
            self._store.remove(self._BEGUN)

    def _read(self, name: str) -> str | None:
        try:
            return self._store.read(name).decode("utf-8", errors="replace")
        except FileNotFoundError:
            return None


class _Hub(Place):
    """A model repository of the Hugging Face hub; a push is one commit."""

    def __init__(self, repository: str, public: bool) -> None:
        super().__init__(f"{_HUB}{repository}")
        self._repository = repository
        self._public = public

    def listing(self) -> str | None:
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / PUSHED
            return target.read_text(encoding="utf-8") if self._download(PUSHED, target) else None

    def read(self, name: str, target: Path) -> None:
        if not self._download(name, target):
            raise DataError(f"{self.name}/{name} is missing; push again")

    def write(self, files: Mapping[str, Path], listing: str, done: Callable[[str], None]) -> None:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

        api = HfApi()
        with self._errors():
            api.create_repo(self._repository, private=not self._public, exist_ok=True)
            there = set(api.list_repo_files(self._repository))
        before = self.listing()
        if before is None and there - {".gitattributes", "README.md"}:
            raise DataError(_something_else(self.name))
        operations: list[Any] = [CommitOperationAdd(name, str(path)) for name, path in files.items()]
        operations.append(CommitOperationAdd(PUSHED, listing.encode()))
        gone = (_names(before) - files.keys()) & there
        operations += [CommitOperationDelete(name) for name in sorted(gone)]
        with self._errors():
            api.create_commit(self._repository, operations, commit_message="Pushed by mmrec")
        for name in files:
            done(name)

    def _download(self, name: str, target: Path) -> bool:
        """Whether the repository has the file."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        with tempfile.TemporaryDirectory(dir=target.parent) as folder, self._errors():  # no second copy in a cache
            try:
                found = hf_hub_download(self._repository, name, local_dir=folder)
            except LocalEntryNotFoundError:  # the hub did not answer
                raise
            except EntryNotFoundError:
                return False
            Path(found).replace(target)
        return True

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        from huggingface_hub.errors import (
            HTTPError,  # pyright: ignore[reportPrivateImportUsage] - of the client that this version is built on
            OfflineModeIsEnabled,
        )

        try:
            yield
        except OfflineModeIsEnabled as error:
            raise DataError(f"{self.name} is on the hub, and HF_HUB_OFFLINE forbids to ask it; unset it") from error
        except (HTTPError, OSError) as error:
            said = " ".join(str(error).split())[:300] or type(error).__name__
            raise DataError(
                f"{self.name} cannot be used: {said}; see that the name is right, the network is there and "
                "`hf auth login` was done"
            ) from error


def _names(listing: str | None) -> set[str]:
    try:
        return set(json.loads(listing)["files"]) if listing else set()
    except (ValueError, KeyError, TypeError):
        return set()


def _something_else(name: str) -> str:
    return f"{name} holds something else than a pushed model; give another destination, or empty it"
