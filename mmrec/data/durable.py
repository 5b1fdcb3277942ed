"""Files that outlast a power cut."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["flush", "write_whole"]


def flush(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there in full or not at all, whenever the process is killed."""
    scratch = path.with_name(f".{path.name}.tmp")
    scratch.write_text(text, encoding="utf-8")
    flush(scratch)
    scratch.replace(path)
    flush(path.parent)
