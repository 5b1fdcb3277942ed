"""Runs an application on a port, with patience for clients that has an end, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import functools
import math
import signal
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from mmrec.errors import ConfigError
from mmrec.serving.settings import ServeSettings

__all__ = ["run_server", "server_config"]

# Of a request's line and headers.
_MAX_HEADER_BYTES = 16_384
# A connection without a request stays open for so long.
_KEEP_ALIVE_S = 10
_TOO_SLOW = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b'content-length: 48\r\n\r\n{"error": "the header took too long to arrive."}'
)


def run_server(
    app: FastAPI, *, host: str, port: int, settings: ServeSettings, on_start: Callable[[str], None] = lambda _: None
) -> None:
    """Answer until SIGTERM or Ctrl-C; what is in flight then is finished first.

    Args:
        port: 0: any free one.
        on_start: called with the address, ``http://host:port``, when the first request can come.

    Raises: ConfigError if the address cannot be listened at.
    """
    listener = _listen(host, port)
    name = f"[{host}]" if ":" in host else host
    address = f"http://{name}:{listener.getsockname()[1]}"
    app.state.decoder.start()
    # uvicorn has handlers of its own while it runs; it then sends itself the signal once more, for whom it may concern.
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        _Server(server_config(app, settings), lambda: on_start(address)).run([listener])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def server_config(app: FastAPI, settings: ServeSettings) -> uvicorn.Config:
    """How uvicorn runs the application."""
    protocol: Any = functools.partial(_PatientForAWhile, patience_s=settings.timeout_s)
    return uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
        # A request may take this long to come and this long to be answered; then there is nothing left to wait for.
        timeout_graceful_shutdown=math.ceil(2 * settings.timeout_s) + 5,
    )


class _Server(uvicorn.Server):
    """Tells when it has started."""

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start()


class _PatientForAWhile(H11Protocol):
    """Ends a connection whose header does not come, or whose answer is not taken, within ``patience_s``.

    uvicorn's own timer is for idle connections alone and begins anew with each byte.
    """

    def __init__(self, *args: Any, patience_s: float, **named: Any) -> None:
        super().__init__(*args, **named)
        self._patience_s = patience_s
        self._reading: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        # asyncio does so for sockets that name their protocol, which those of socket.create_server do not: the body of
        # an answer would wait 40 ms for the client to acknowledge the head.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._await_header()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._await_header()

    def connection_lost(self, exc: Exception | None) -> None:
        self._reading, self._writing = _cancelled(self._reading), _cancelled(self._writing)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._writing = self._writing or self.loop.call_later(self._patience_s, self.transport.abort)

    def resume_writing(self) -> None:
        self._writing = _cancelled(self._writing)
        super().resume_writing()

    def _await_header(self) -> None:
        """Start the timer, unless it runs or a header is there; from then on the application takes care of time."""
        if self._is_answering or self.transport.is_closing():
            self._reading = _cancelled(self._reading)
        elif self._reading is None:
            self._reading = self.loop.call_later(self._patience_s, self._give_up)

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _give_up(self) -> None:
        self._reading = None
        if self._is_answering or self.transport.is_closing():
            return
        if self.conn.trailing_data[0]:  # the begin of a header; without one, a browser has connected ahead of need
            self.transport.write(_TOO_SLOW)
        self.transport.close()


def _cancelled(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port < 65536:
        raise ConfigError(f"--port is {port}; give one from 1 to 65535, or 0 for any free one")
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(place[:2], family=family)
    except OSError as error:
        raise ConfigError(
            f"cannot listen at {host}:{port} ({error.strerror or error}); give another --port, or --host"
        ) from error
