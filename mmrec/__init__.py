"""mmrec: train recommenders on what items look, read, sound and move like.

The Python interface of a trained model is :func:`load`; everything else is the command `mmrec`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmrec.engine import Engine

__all__ = ["load"]


def load(path: Path | str, *, users_of: Path | str | None = None) -> Engine:
    """Open an export folder: ``mmrec.load(path).encode_items([...])``, ``.encode_users([...])``, ``.recommend(...)``.

    A checkpoint or run folder opens too: it encodes new items, and everything else says in one line what is missing.

    Args:
        users_of: run of a newer model, trained to be compatible with the export, whose users are matched with it.

    Raises: mmrec.errors.DataError if the folder is neither, unfinished, or damaged; CheckpointError if the newer model
        is not compatible.
    """
    from mmrec.engine import Engine

    return Engine.open(path, users_of=users_of)
