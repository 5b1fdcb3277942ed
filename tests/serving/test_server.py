"""The command itself: slow clients, signals, and what it says of its arguments."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
import uvicorn

from mmrec import cli_serve
from mmrec.cli import main
from mmrec.serving.app import build_app
from mmrec.serving.server import server_config
from mmrec.serving.settings import ServeSettings
from tests.conftest import jpeg_bytes

POST = b"POST /similar HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def connect(client: httpx.Client, sent: bytes = b"") -> socket.socket:
    connection = socket.create_connection((client.base_url.host, client.base_url.port), timeout=60)
    connection.sendall(sent)
    return connection


def answer(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    received = b""
    with connection:
        while part := connection.recv(65_536):
            received += part
    return received


def drip(connection: socket.socket, byte: bytes, every_s: float, until_s: float) -> bytes:
    """Send a byte now and then; what the server answers meanwhile."""
    connection.settimeout(every_s)
    end = time.monotonic() + until_s
    while time.monotonic() < end:
        try:
            connection.sendall(byte)
            return connection.recv(65_536)
        except TimeoutError:
            continue
        except OSError:
            return b""
    raise AssertionError(f"still open after {until_s} s")


def test_the_body_of_an_answer_does_not_wait_until_the_head_is_acknowledged(served_export):
    settings = ServeSettings()
    server = uvicorn.Server(server_config(build_app(served_export, settings), settings))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=60) as client:
                assert client.get("/health").status_code == 200
                sockets = [one.transport.get_extra_info("socket") for one in server.server_state.connections]
                assert [one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for one in sockets] == [1]
        finally:
            server.should_exit = True
            thread.join()


def test_slow_clients_are_ended_while_others_are_answered(served_export, serve):
    with serve(served_export, timeout_s=2) as client:
        started = time.monotonic()
        silent = [connect(client) for _ in range(20)]
        headers = [connect(client, b"GET /health HTTP/1.1\r\nX-A: ") for _ in range(20)]
        bodies = [connect(client, POST + b"Content-Length: 100\r\n\r\n{") for _ in range(20)]
        assert client.get("/health").status_code == 200
        assert drip(headers[0], b"a", 0.2, 20).startswith(b"HTTP/1.1 408 ")
        assert drip(bodies[0], b" ", 0.2, 20).startswith(b"HTTP/1.1 408 ")
        assert {answer(connection) for connection in silent} == {b""}
        assert {answer(connection)[:13] for connection in headers[1:] + bodies[1:]} == {b"HTTP/1.1 408 "}
        assert 1.5 < time.monotonic() - started < 30
        assert client.get("/health").status_code == 200


def test_the_second_header_of_a_connection_has_to_come_as_well(served_export, serve):
    with serve(served_export, timeout_s=2) as client:
        connection = connect(client, b"GET /none HTTP/1.1\r\nHost: x\r\n\r\n")
        received = b""
        while not received.endswith(b'{"error": "Not Found"}'):
            received += connection.recv(65_536)
        assert drip(connection, b"a", 0.2, 20).startswith(b"HTTP/1.1 408 ")


def test_who_does_not_read_the_answers_is_ended(served_export, serve):
    with serve(served_export, timeout_s=2) as client:
        num, size = 600, len(client.get("/openapi.json").content)
        connection = connect(client, b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * num)
        time.sleep(6)  # the buffers of the system hold a few megabytes of what is not read
        try:
            received = len(answer(connection))
        except ConnectionResetError:
            received = 0
        assert received < num * size
        assert client.get("/health").status_code == 200


@pytest.fixture
def command(served_export):
    """`mmrec serve` on a free port; gives the process and a client."""
    environment = os.environ | {"MMREC_TOKEN": "from the environment"}
    arguments = [sys.executable, "-m", "mmrec", "serve", str(served_export), "--port", "0", "--timeout-s", "60"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith(f"answering from {served_export} at http://127.0.0.1:")
        address = line.split(" at ")[1].split()[0]
        headers = {"authorization": "Bearer from the environment"}
        with httpx.Client(base_url=address, headers=headers, timeout=120) as client:
            yield process, client
    finally:
        process.kill()
        process.wait()


def test_sigterm_lets_requests_in_flight_finish(command):
    process, client = command
    body = b'{"items": ["i01"], "k": 3}'
    head = POST + b"Authorization: Bearer from the environment\r\nContent-Length: %d\r\n\r\n" % len(body)
    in_flight = connect(client, head + body[:5])
    idle = connect(client)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    with pytest.raises(httpx.ConnectError):
        httpx.get(client.base_url.join("/health"))
    in_flight.sendall(body[5:])
    assert answer(in_flight).startswith(b"HTTP/1.1 200 ")
    assert answer(idle) == b""
    assert process.wait(60) == 0


def test_the_token_comes_from_the_environment_and_uploads_are_answered(command):
    _, client = command
    assert client.get("/items/i01").status_code == 200
    assert client.get("/items/i01", headers={"authorization": ""}).status_code == 401
    while (response := client.post("/search", files={"image": jpeg_bytes(1)}, data={"k": "2"})).status_code == 408:
        pass  # the decoders are starting
    assert len(response.json()["results"][0]) == 2


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["{tmp}"], "is no export folder"),
        (["{export}", "--port", "70000"], "--port is 70000; give one from 1 to 65535"),
        (["{export}", "--host", "192.0.2.1"], "cannot listen at 192.0.2.1:8000"),
        (["{export}", "--timeout-s", "0"], "timeout_s is 0.0; it must be more than 0"),
        (["{export}", "--token-file", "{tmp}/none"], "is no file; give one whose only line is the token"),
        (["{export}", "--token-file", "{tmp}/empty"], "is empty; its only line must be the token"),
        (["{export}", "--token-file", "{tmp}/short"], "the token must have 8 printable ASCII characters or more"),
    ],
)
def test_arguments_that_are_not_allowed(served_export, tmp_path: Path, capsys, arguments, line):
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "short").write_text("1234567\n")
    assert main(["serve", *(one.format(export=served_export, tmp=tmp_path) for one in arguments)]) == 2
    error = capsys.readouterr().err.strip()
    assert line in error
    assert "\n" not in error


def test_a_missing_extra_is_named(served_export, monkeypatch, capsys):
    monkeypatch.setattr(cli_serve, "_NEEDED", ("json", "no_such_package"))
    assert main(["serve", str(served_export)]) == 2
    assert "needs no_such_package; install the extra: pip install 'mmrec[serve]'" in capsys.readouterr().err
