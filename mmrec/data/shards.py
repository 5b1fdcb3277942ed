"""Media in tar shards, laid out for plain WebDataset readers: units.py writes them, shard_reader.py reads by offset."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Location", "item_key", "shard_name"]


@dataclass(frozen=True)
class Location:
    """Where the bytes of one medium lie, and their hash."""

    shard: int
    offset: int
    size: int
    xxh3: int


def item_key(key: int) -> str:
    """WebDataset key of an item: of fixed width, so that keys sort; without a dot, at which readers would split it."""
    return f"{key:09d}"


def shard_name(shard: int) -> str:
    return f"media/shard-{shard:05d}.tar"
