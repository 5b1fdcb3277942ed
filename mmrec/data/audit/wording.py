"""How several things are named in a line, and how a number is written."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["first_of", "named", "quantity", "shortened"]

# Ids of up to 1,024 bytes are allowed; of longer ones than this a line shows the beginning.
_NAME = 100


def first_of(names: Sequence[str], most: int = 3) -> str:
    """``'a', 'b', 'c', ...``"""
    shown = ", ".join(repr(shortened(str(name), _NAME)) for name in names[:most])
    return f"{shown}, ..." if len(names) > most else shown


def named(what: str, names: Sequence[str]) -> str:
    """``item 'a'``, or ``12 items ('a', 'b', 'c', ...)``."""
    return (
        f"{what} {shortened(str(names[0]), _NAME)!r}"
        if len(names) == 1
        else f"{len(names):,} {what}s ({first_of(names)})"
    )


def quantity(value: float) -> str:
    """Three digits or so: ``1,234``, ``128``, ``15.2``, ``0.75``."""
    if value == round(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def shortened(text: str, most: int) -> str:
    """At most ``most`` letters of a text, and a sign that there are more."""
    return text if len(text) <= most else f"{text[:most]}…"
