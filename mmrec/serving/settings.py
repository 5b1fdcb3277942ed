"""What a server allows."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from mmrec.errors import ConfigError

__all__ = ["LOOPBACK", "ServeSettings"]

LOOPBACK = ("127.0.0.1", "[::1]", "localhost")
"""Names of this machine to itself."""


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Limits of a server. What goes beyond one is answered with a status of 4xx and one line that names the limit.

    Attributes:
        hosts: names under which clients may ask (the header Host), without port; None: any. A server of one machine
            without a token needs it, or a page of anyone's in its browser can read from it, by a name of that page's
            which suddenly means this machine (DNS rebinding).
        token: what clients send as ``Authorization: Bearer TOKEN``; None: everyone may ask.
        max_upload_mb: size of a request's body, 10^6 bytes.
        timeout_s: seconds that a client may take to send its request, and again that its answer may take.
        max_concurrent: requests that are being answered or wait for a thread; more are told to come back (429).
        max_k: answers to one question.
        max_batch: histories, items, queries or records of one request.
        max_history: items of one history.
        num_threads: threads that compute answers.
        num_decoders: processes that decode uploads, each one upload at a time.
        reload_s: seconds between two looks whether the export has changed; 0: only when asked (``POST /reload``).
    """

    hosts: tuple[str, ...] | None = None
    token: str | None = field(default=None, repr=False)
    max_upload_mb: float = 32.0
    timeout_s: float = 10.0
    max_concurrent: int = 64
    max_k: int = 500
    max_batch: int = 128
    max_history: int = 10_000
    num_threads: int = field(default_factory=lambda: min(os.cpu_count() or 1, 8))
    num_decoders: int = 2
    reload_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("max_upload_mb", "timeout_s"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be more than 0")
        for name in ("max_concurrent", "max_k", "max_batch", "max_history", "num_threads", "num_decoders"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.reload_s < float("inf"):
            raise ConfigError(f"reload_s is {self.reload_s}; it must be 0 (only when asked) or more")
        if self.token is not None and not (self.token.isascii() and self.token.isprintable() and len(self.token) >= 8):
            raise ConfigError("the token must have 8 printable ASCII characters or more, without line breaks")

    @property
    def max_upload_bytes(self) -> int:
        return int(self.max_upload_mb * 1_000_000)
