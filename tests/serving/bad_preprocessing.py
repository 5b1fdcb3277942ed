"""Preprocessings that do what a decoder may do to its process."""

from __future__ import annotations

import ctypes


class Hangs:
    """In foreign code that holds the interpreter's lock."""

    def __call__(self, data: bytes) -> bytes:
        ctypes.PyDLL(None).sleep(3600)
        return data


class Crashes:
    def __call__(self, data: bytes) -> bytes:
        ctypes.string_at(0)
        return data


class Floods:
    def __call__(self, data: bytes) -> int:
        return len(bytearray(64 << 30))
