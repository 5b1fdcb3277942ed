"""How several things are named in a line, and how a number is written."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["first_of", "named", "quantity"]


def first_of(names: Sequence[str], most: int = 3) -> str:
    """``'a', 'b', 'c', ...``"""
    shown = ", ".join(repr(str(name)) for name in names[:most])
    return f"{shown}, ..." if len(names) > most else shown


def named(what: str, names: Sequence[str]) -> str:
    """``item 'a'``, or ``12 items ('a', 'b', 'c', ...)``."""
    return f"{what} {str(names[0])!r}" if len(names) == 1 else f"{len(names):,} {what}s ({first_of(names)})"


def quantity(value: float) -> str:
    """Three digits or so: ``1,234``, ``128``, ``15.2``, ``0.75``."""
    if value == round(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
