"""What is refused, with which status and which line; the server answers on."""

from __future__ import annotations

import json
import socket
import threading
import time

import httpx
import pytest
from fastapi import APIRouter, Request

from mmrec.serving.settings import LOOPBACK
from tests.conftest import jpeg_bytes, wav_bytes
from tests.serving.bad_preprocessing import Crashes, Floods, Hangs

HISTORY = {"items": ["i01"]}


def assert_refused(response: httpx.Response, status: int, line: str) -> None:
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    assert line in response.json()["error"]
    assert "\n" not in response.json()["error"]


@pytest.mark.parametrize(
    ("path", "body", "status", "line"),
    [
        ("/recommend", {}, 422, "histories: Field required"),
        ("/recommend", {"histories": []}, 422, "histories: List should have at least 1 item"),
        ("/recommend", {"histories": [HISTORY], "K": 3}, 422, "K: Extra inputs are not permitted"),
        ("/recommend", {"histories": [HISTORY], "k": 0}, 422, "k: Input should be greater than or equal to 1"),
        ("/recommend", {"histories": [HISTORY], "k": 501}, 400, "k is 501; at most 500"),
        ("/recommend", {"histories": [HISTORY] * 129}, 400, "129 histories are too many for one request; at most 128"),
        ("/recommend", {"histories": [{"items": ["i01"] * 10_001}]}, 400, "a history has at most 10,000 items"),
        ("/recommend", {"histories": [{"items": ["nope"]}]}, 404, "unknown item 'nope'"),
        ("/recommend", {"histories": [{"items": ["i01"], "disliked": ["nope"]}]}, 404, "unknown item 'nope'"),
        ("/recommend", {"histories": [{"items": []}]}, 400, "the user has no events to go on"),
        ("/recommend", {"histories": [{"items": ["i01"], "times": [1, 2]}]}, 400, "2 times were given for 1 items"),
        ("/recommend", {"histories": [{"items": ["i01"], "at": 1 << 60}]}, 422, "at: Input should be less than"),
        ("/recommend", {"histories": [HISTORY], "where": {"colour": ["red"]}}, 400, "colour"),
        ("/recommend", {"histories": [HISTORY], "rerank": "best"}, 400, "the re-ranking is 'best'"),
        ("/similar", {"items": ["../../etc/passwd"]}, 404, "unknown item '../../etc/passwd'"),
        ("/similar", {"items": "i01"}, 422, "items: Input should be a valid list"),
        ("/search", {"queries": [{}]}, 400, "the query is empty"),
        ("/search", {"queries": [{"text": ""}]}, 422, "queries.0.text: String should have at least 1 character"),
        ("/search", {"queries": [{"text": " \n "}]}, 400, "the text is empty"),
        ("/search", {"queries": [{"text": "x" * 100_001}]}, 422, "String should have at most 100000 characters"),
        ("/embed", {"records": [{"image": "aGVsbG8="}]}, 422, "records.0.text: Field required"),
    ],
)
def test_values_that_are_not_allowed(client, path, body, status, line):
    assert_refused(client.post(path, json=body), status, line)


@pytest.mark.parametrize("path", ["/recommend", "/similar", "/search", "/embed"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"' + b"a" * 10_000,
        b"[" * 100_000,
        b'{"histories": ' + b'[{"items": ' * 5_000,
        b'{"items": ["\\ud800"], "histories": [{"items": ["\\udfff"]}], "queries": [{"text": "\\ud800"}], '
        b'"records": [{"text": "\\ud800"}]}',
        b'{"k": NaN}',
        b'{"k": 1' + b"0" * 10_000 + b"}",
        bytes(range(256)),
        "{}".encode("utf-16"),
    ],
    ids=lambda body: repr(body[:20]),
)
def test_bodies_that_are_no_json_of_this_shape(client, path, body):
    response = client.post(path, content=body, headers={"content-type": "application/json"})
    assert response.status_code in (400, 422)
    assert list(response.json()) == ["error"]


@pytest.mark.parametrize(
    ("fields", "files", "status", "line"),
    [
        ({"k": "3"}, {}, 400, "the query is empty"),
        ({"text": "red", "k": "three"}, {}, 400, "k is 'three'; give a number from 1"),
        ({"text": "red", "k": "-1"}, {}, 400, "k is '-1'"),
        ({"text": "red", "k": "99999999999999"}, {}, 400, "k is '99999999999999'"),
        ({"text": ["red", "blue"]}, {}, 400, "'text' is given twice"),
        ({"image": "text"}, {}, 415, "'image' is no file"),
        ({"colour": "red"}, {}, 400, "unknown field 'colour'"),
        ({"item": ["i01", "nope"]}, {}, 404, "unknown item 'nope'"),
        ({"item": ["i01"] * 103}, {}, 400, "Too many fields"),
        ({}, {"text": b"red"}, 400, "a file was given for 'text'"),
        ({}, {"image": b""}, 415, "the file given for 'image' is empty"),
        ({}, {"image": wav_bytes(300.0)}, 415, "the file given for 'image' looks like audio"),
        ({}, {"audio": jpeg_bytes(1)}, 415, "the file given for 'audio' looks like image"),
        ({}, {"video": b"<!doctype html><title>no</title>"}, 415, "is of no kind that mmrec decodes"),
        ({}, {"video": b"#EXTM3U\nfile:///etc/passwd\n"}, 415, "is of no kind that mmrec decodes"),
        ({}, {"image": b"%!PS-Adobe-3.0 EPSF-3.0\n"}, 415, "is of no kind that mmrec decodes"),
        ({}, {"image": jpeg_bytes(1)[:300]}, 415, ""),
    ],
)
def test_forms_that_are_not_allowed(client, fields, files, status, line):
    parts = [(name, ("a.jpg", data)) for name, data in files.items()]
    for name, given in fields.items():
        parts += [(name, (None, value)) for value in ([given] if isinstance(given, str) else given)]
    assert_refused(client.post("/search", files=parts), status, line)


def test_content_types_that_are_neither(client):
    assert_refused(client.post("/search", content=b"text=red"), 415, "send application/json or multipart/form-data")
    form = {"content-type": "multipart/form-data"}
    assert_refused(client.post("/search", content=b"text=red", headers=form), 400, "boundary")


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/..%2f..%2fetc/passwd",
        "/docs/../manifest.json",
        "/items/",
        "/items/%00",
        "/items//etc/passwd",
        "/items/../../etc/passwd",
        "/items/%2e%2e%2fmanifest.json",
        "/manifest.json",
        "/model/config.json",
        "/%ff",
    ],
)
def test_no_path_leads_to_a_file(client, path):
    status, body = raw(client, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert status == 404
    assert list(json.loads(body)) == ["error"]


def test_methods_and_requests_that_are_none(client):
    assert_refused(client.delete("/recommend"), 405, "Method Not Allowed")
    status, _ = raw(client, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    assert status == 400
    status, _ = raw(client, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 10_000)
    assert status == 400
    assert client.get("/health").status_code == 200


def raw(client: httpx.Client, request: bytes) -> tuple[int, bytes]:
    """Status and body of what a server answers to these bytes before it closes."""
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=60) as connection:
        connection.sendall(request)
        answer = b""
        while part := connection.recv(65_536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def test_a_body_that_is_too_large_is_not_read(served_export, serve):
    with serve(served_export, max_upload_mb=0.1) as client:
        assert_refused(client.post("/embed", files={"image": b"\xff" * 200_000}), 413, "at most 100,000 bytes")

        def endless():
            for _ in range(10_000):
                yield b"\0" * 65_536

        try:
            response = client.post("/embed", content=endless(), headers={"content-type": "application/json"})
            assert response.status_code == 413
        except httpx.WriteError:  # the server has stopped listening
            pass
        assert client.get("/health").status_code == 200


def test_a_token_is_asked_for_everywhere_but_for_health(served_export, serve):
    with serve(served_export, token="correct horse") as client:
        assert client.get("/health").status_code == 200
        for method, path in (("GET", "/metrics"), ("GET", "/docs"), ("GET", "/openapi.json"), ("POST", "/similar")):
            assert_refused(client.request(method, path), 401, "Authorization: Bearer TOKEN")
        for header in (
            "correct horse",
            "Bearer correct",
            "Bearer correct horse battery",
            "Basic correct horse",
            "Bearer é",
        ):
            response = client.get("/items/i01", headers={"authorization": header.encode()})
            assert_refused(response, 401, "this server asks for a token")
            assert response.headers["www-authenticate"] == "Bearer"
        right = {"authorization": "Bearer correct horse"}
        assert client.get("/items/i01", headers=right).status_code == 200
        assert client.post("/reload", headers=right).json()["reloaded"] is False


def test_a_server_of_one_machine_answers_to_its_names_alone(served_export, serve):
    with serve(served_export, hosts=LOOPBACK) as client:
        assert client.get("/health").status_code == 200
        for host in ("localhost", "localhost:8000", "127.0.0.1:1", "[::1]:8000"):
            assert client.get("/health", headers={"host": host}).status_code == 200
        for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example:80"):
            assert_refused(client.get("/health", headers={"host": host}), 421, "it answers to 127.0.0.1")


def test_without_a_token_clients_cannot_reload(client):
    assert_refused(client.post("/reload"), 401, "only a server with a token reloads for a client")


def slow_pages(gate: threading.Event) -> APIRouter:
    """Routes that take long, crash, or hang, as those of the server would."""
    pages = APIRouter()

    @pages.get("/waits")
    async def waits(request: Request) -> str:
        return await request.app.state.workers.run(lambda: str(gate.wait(60)))

    @pages.get("/fails")
    async def fails(request: Request) -> str:
        return await request.app.state.workers.run(lambda: str(1 / 0))

    @pages.get("/decodes/{how}")
    async def decodes(how: str, request: Request) -> str:
        state = request.app.state
        preprocessing = {"hangs": Hangs(), "crashes": Crashes(), "floods": Floods()}[how]
        return await state.upload_workers.run(lambda: str(state.decoder(preprocessing, b"data")))

    return pages


def test_too_many_at_once_are_told_to_come_back_and_too_slow_ones_end(served_export, serve):
    gate = threading.Event()
    with serve(served_export, pages=[slow_pages(gate)], timeout_s=4, max_concurrent=2, num_threads=1) as client:
        found: list[httpx.Response] = []
        threads = [threading.Thread(target=lambda: found.append(client.get("/waits"))) for _ in range(2)]
        for thread in threads:
            thread.start()
        time.sleep(1)
        refused = client.post("/similar", json={"items": ["i01"]})
        assert_refused(refused, 429, "2 requests are being answered; try again in a second")
        assert refused.headers["retry-after"] == "1"
        assert client.get("/health").status_code == 200  # needs no thread
        for thread in threads:
            thread.join()
        assert [response.status_code for response in found] == [408, 408]
        gate.set()
        time.sleep(0.5)
        assert client.post("/similar", json={"items": ["i01"]}).status_code == 200


def test_a_defect_tells_the_client_nothing_of_itself(served_export, serve):
    with serve(served_export, pages=[slow_pages(threading.Event())]) as client:
        response = client.get("/fails")
        assert_refused(response, 500, "a defect of the server; its log tells more")
        assert "ZeroDivision" not in response.text
        assert 'mmrec_requests_total{route="/fails",status="500"} 1.0' in client.get("/metrics").text


def test_decoders_that_hang_crash_or_flood_cost_their_request_alone(served_export, serve):
    with serve(served_export, pages=[slow_pages(threading.Event())], timeout_s=4, num_decoders=2) as client:
        until_ready(client)
        found: list[httpx.Response] = []
        hanging = [threading.Thread(target=lambda: found.append(client.get("/decodes/hangs"))) for _ in range(2)]
        for thread in hanging:
            thread.start()
        time.sleep(0.5)
        assert client.post("/similar", json={"items": ["i01"]}).status_code == 200
        for thread in hanging:
            thread.join()
        for response in found:
            assert_refused(response, 408, "took longer than 4 s")
        for how, line in (("crashes", "the decoder crashed (SIGSEGV)"), ("floods", "ran out of memory")):
            until_ready(client)
            assert_refused(client.get(f"/decodes/{how}"), 415, line)
        until_ready(client)


def until_ready(client: httpx.Client) -> None:
    """Upload until a decoder has started, or started again, which takes longer than a request may."""
    while not (response := client.post("/embed", files={"image": jpeg_bytes(1)})).is_success:
        assert response.status_code == 408, response.text
