"""The export that is served, and its change to a new one while requests go on.

EXPORT may be a folder whose manifest changes, or a symbolic link that is moved. The new export is opened, compared with
all hashes of its manifest and loaded whole beside the old one; then one assignment makes it the current one. A request
takes the current export once, so that an answer is from one export as a whole; the old goes with its last request.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from mmrec.engine import Engine, History
from mmrec.engine.vectors import Encoders
from mmrec.errors import DataError, MMRecError
from mmrec.export_folder import MANIFEST, ExportFolder
from mmrec.modality_encoders import Preprocessing

__all__ = ["RAW_MODALITIES", "LiveExport", "OpenExport"]

# What a new item can come with.
RAW_MODALITIES = ("text", "image", "audio", "video")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class OpenExport:
    """One export, loaded.

    Attributes:
        identity: 16 hexadecimal digits that change with any file of the export.
        item_ids: all of them.
        preprocessings: what the model makes of raw values, by modality.
    """

    engine: Engine
    identity: str
    item_ids: frozenset[str]
    preprocessings: Mapping[str, Preprocessing]


class LiveExport:
    """Holds the export that answers.

    Args:
        path: folder made by `mmrec export`, or a link to one.

    Attributes:
        current: what answers now.
        error: why the last look at a new export has not brought it; None: it has, or there was none.
        num_reloads: exports that took the place of another.

    Raises: DataError if the first export cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen: object = _state(path)
        self.current = _open(path)
        self.error: str | None = None
        self.num_reloads = 0

    def reload(self) -> bool:
        """Serve the export that is there now; whether it is another than before. A damaged one leaves the old."""
        with self._lock:
            self._seen = _state(self._path)
            try:
                new = _open(self._path)
            except Exception as error:  # whatever a damaged file does to its reader, the old export goes on
                self._keep_old(error)
                return False
            self.error = None
            if new.identity == self.current.identity:
                return False
            self.current = new
            self.num_reloads += 1
        logger.info("serving %s items, export %s", f"{new.engine.export.num_items:,}", new.identity)
        return True

    def _keep_old(self, error: Exception) -> None:
        self._seen = None  # looked at again: files may still be coming, the manifest not the last of them
        known = isinstance(error, MMRecError)
        message = str(error) if known else f"{type(error).__name__}: {error}"
        public = message.replace(os.path.realpath(self._path), "the export").replace(str(self._path), "the export")
        if public != self.error:
            logger.error("the new export is not used: %s", message, exc_info=None if known else error)
        self.error = public

    def reload_if_changed(self) -> bool:
        """:meth:`reload`, if the link or the manifest is not what it was at the last look, or that failed."""
        return _state(self._path) != self._seen and self.reload()


def _state(path: Path) -> tuple[object, ...]:
    """Changes when the link points elsewhere or the manifest is written."""
    folder = os.path.realpath(path)
    try:
        status = os.stat(os.path.join(folder, MANIFEST))
    except OSError:  # what is wrong with it, opening it will tell
        return (folder,)
    return folder, status.st_ino, status.st_size, status.st_mtime_ns


def _open(path: Path) -> OpenExport:
    folder = Path(os.path.realpath(path))  # files are read from where the link points now, wherever it points later
    before = _stamps(folder)
    ExportFolder.open(folder)  # sizes first: of a folder that is still being filled, no file need be read
    export = ExportFolder.open(folder, verify=True)
    engine = Engine(Encoders(folder / "model", export))
    preprocessings = _load(engine)
    manifest = (folder / MANIFEST).read_bytes()
    if _stamps(folder) != before:
        raise DataError(f"{folder} changed while it was read; it is read again")
    item_ids = frozenset(export.id_column.to_pylist())
    return OpenExport(
        engine=engine,
        identity=sha256(manifest).hexdigest()[:16],
        item_ids=item_ids,
        preprocessings=preprocessings,
    )


def _load(engine: Engine) -> dict[str, Preprocessing]:
    """Have everything read that an answer may need: from then on none reads a file, and the folder may change.

    Returns: the preprocessings of the media that a new item may come with.
    """
    export = engine.export
    first = export.id_column[0].as_py()
    export.item_rows([first] * 100)  # many ids: looked up in a table from now on
    assert len(export.title_column) == len(export.bitmasks) == len(export.attributes) == export.num_items
    assert export.shares is None or len(export.shares) == export.num_items
    engine.recommend(History(items=[first], times=[0], at=0), k=1)
    raw = [name for name in RAW_MODALITIES if name in engine.modalities]
    known = engine.encoders.item_model(raw).inputs.preprocessings if raw else {}
    return {name: known[name] for name in raw}


def _stamps(folder: Path) -> dict[str, tuple[int, int, int]]:
    """What tells, of all files below a folder, whether one was written meanwhile."""
    stamps = {}
    for place, _, names in os.walk(folder):
        for name in names:
            status = os.stat(os.path.join(place, name))
            stamps[os.path.join(place, name)] = status.st_ino, status.st_size, status.st_mtime_ns
    return stamps
