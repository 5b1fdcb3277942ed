"""The errors that a user can act on.

Each message is one line: what was given, what is allowed, what to do. The command line prints it and leaves with exit
code 2, without a traceback; everything else that is raised is a defect of mmrec and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["CheckpointError", "ConfigError", "DataError", "MMRecError", "MediaError", "TrainingError", "unknown_name"]


class MMRecError(Exception):
    """Base of every error that the user, not mmrec, can put right."""


class ConfigError(MMRecError):
    """A setting that is unknown, out of range, or at odds with another."""


class DataError(MMRecError):
    """A table, a dataset folder or an export folder that cannot be used as it is."""


class MediaError(MMRecError):
    """One media file that cannot be used; ingestion turns it into a row of ``errors.parquet``."""


class CheckpointError(MMRecError):
    """A checkpoint that is damaged, of another version, or trained on other data."""


class TrainingError(MMRecError):
    """A run that cannot go on, such as one whose loss is no number any more."""


def unknown_name(what: str, given: str, known: Iterable[str]) -> str:
    """One line that names what was given, the nearest known name, and all known names."""
    names = sorted(known)
    nearest = difflib.get_close_matches(given, names, n=1)
    hint = f"; perhaps you meant {nearest[0]!r}" if nearest else ""
    return f"unknown {what} {given!r}{hint}; known: {', '.join(names) or 'none'}"
