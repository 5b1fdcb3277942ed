"""Files that outlast a power cut."""

from __future__ import annotations

from pathlib import Path

from mmrec.atomic_files import flush

__all__ = ["write_whole"]


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there in full or not at all, whenever the process is killed."""
    scratch = path.with_name(f".{path.name}.tmp")
    scratch.write_text(text, encoding="utf-8")
    flush(scratch)
    scratch.replace(path)
    flush(path.parent)
