"""What each request passes before it is read: the token, the size of its body, the time it takes; and is counted.

A plain ASGI middleware. It reads the body itself, so that a limit holds while the bytes arrive and nothing behind it
waits for a client.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import time
from hashlib import sha256

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmrec.serving.metrics import ServerMetrics
from mmrec.serving.refusals import RefusedError, refusal_body
from mmrec.serving.settings import ServeSettings

__all__ = ["Gate"]

# Open to everyone: what a load balancer asks.
_WITHOUT_TOKEN = ("/health",)
# Bodies that are held at once, in units of the largest one allowed.
_BODIES_HELD = 8
# A refused client may still be sending; it is listened to for so long, lest it miss the answer.
_LINGER_S = 2.0


class Gate:
    """Lets a request through to ``app``, or refuses it.

    Args:
        app: what answers.
        settings: the limits.
        metrics: where requests are counted.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings, metrics: ServerMetrics) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        self._token = None if settings.token is None else sha256(settings.token.encode()).digest()
        self._bytes_held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started, exchange = time.perf_counter(), _Exchange(receive, send)
        with self._metrics.in_flight.track_inprogress():
            try:
                await self._pass(scope, exchange)
            except RefusedError as error:
                await exchange.refuse(error)
            finally:
                route = _route(scope)
                self._metrics.requests.labels(route, str(exchange.status or 500)).inc()
                self._metrics.seconds.labels(route).observe(time.perf_counter() - started)

    async def _pass(self, scope: Scope, exchange: _Exchange) -> None:
        headers = Headers(scope=scope)
        self._check_host(headers.get("host", ""))
        self._check_token(scope["path"], headers)
        limit_s = self._settings.timeout_s
        held = 0
        try:
            try:
                async with asyncio.timeout(limit_s):
                    body = await self._body(headers, exchange)
                    held = len(body)
            except TimeoutError:
                raise RefusedError(408, f"the request took longer than {limit_s:g} s to arrive") from None
            try:
                async with asyncio.timeout(limit_s):
                    await self._app(scope, exchange.replay(body), exchange.send)
            except TimeoutError:
                raise RefusedError(408, f"the answer took longer than {limit_s:g} s") from None
        finally:
            self._bytes_held -= held

    def _check_host(self, host: str) -> None:
        name = re.sub(r":\d*$", "", host).lower()
        if self._settings.hosts is not None and name not in self._settings.hosts:
            raise RefusedError(421, f"this server is none of {name!r}; it answers to {', '.join(self._settings.hosts)}")

    def _check_token(self, path: str, headers: Headers) -> None:
        if self._token is None or path in _WITHOUT_TOKEN:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # Digests, of one length each, so that the time tells nothing of the token, its length included.
        right = hmac.compare_digest(sha256(given.strip().encode()).digest(), self._token)
        if scheme.lower() != "bearer" or not right:
            raise RefusedError(401, "this server asks for a token: send the header Authorization: Bearer TOKEN")

    async def _body(self, headers: Headers, exchange: _Exchange) -> bytes:
        limit = self._settings.max_upload_bytes
        too_large = RefusedError(413, f"the body is too large; at most {limit:,} bytes")
        if int(headers.get("content-length", "0")) > limit:
            raise too_large
        parts: list[bytes] = []
        held = 0
        try:
            while (part := await exchange.read()) is not None:
                held += len(part)
                self._bytes_held += len(part)
                if held > limit:
                    raise too_large
                if self._bytes_held > _BODIES_HELD * limit:
                    raise RefusedError(429, "too many uploads at once; try again in a second")
                parts.append(part)
        except BaseException:
            self._bytes_held -= held
            raise
        return b"".join(parts)


class _Exchange:
    """One request and its answer: what has been read and sent of them."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._is_read = False
        self.status = 0
        """0 until an answer is begun."""

    async def read(self) -> bytes | None:
        """The next bytes of the body; None after the last.

        Raises: ClientDisconnect if the client has left.
        """
        if self._is_read:
            return None
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise RefusedError(408, "the client left before its request was there")
        self._is_read = not message.get("more_body", False)
        return message.get("body", b"")

    def replay(self, body: bytes) -> Receive:
        """A ``receive`` that gives the body whole, and then waits for the client to leave."""
        pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            return pending.pop() if pending else await self._receive()

        return receive

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)

    async def refuse(self, error: RefusedError) -> None:
        """Answer with the error, unless an answer was begun: that ends where it is, and the server closes upon it."""
        if self.status:
            return
        body = refusal_body(error.message)
        headers = {"content-type": "application/json", "content-length": str(len(body)), **error.headers}
        if not self._is_read:
            headers["connection"] = "close"
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": error.status, "headers": raw})
        await self.send({"type": "http.response.body", "body": body, "more_body": not self._is_read})
        if not self._is_read:
            await self._linger()
            await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _linger(self) -> None:
        """Read and drop what still comes: to close on unread bytes would reset the connection under the answer."""
        try:
            async with asyncio.timeout(_LINGER_S):
                while await self.read() is not None:
                    pass
        except (TimeoutError, RefusedError):
            return


def _route(scope: Scope) -> str:
    """The route as it was declared, so that ids make no label; "none" where a request did not come to one."""
    return getattr(scope.get("route"), "path", "none")
