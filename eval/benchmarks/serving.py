"""What answering over HTTP costs: latency under load, and what the server adds to the call of the engine under it.

    python -m eval.benchmarks.serving EXPORT

Starts `mmrec serve` on loopback in a process of its own and asks 10,000 questions over 32 connections that stay open,
on each the next as soon as the last is answered: half /recommend (a history of five items), a quarter /similar, a tenth
each /search by text and /items, a twentieth /search by a picture. Beside that, the first 1,000 of them

- alone: over one connection, one after the other
- engine: called on the engine in this process, one after the other

and the overhead of the server is the difference of the two medians, by route; on a machine that others use, the CPU
times say more. Ends with exit code 1 if any answer is not 200. Client, server and its two decoders share the machine.

Measured 2026-11-26 on the demo's export (400 items of 64 dimensions, all raw modalities), 2-core CPU on which a test
suite kept one core busy: 10,000 requests, no error, 212 a second, p50 150 ms, p99 236 ms. Alone p50 3.8 ms, the engine
2.3 ms, so that HTTP, checks and JSON add 1.4 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from mmrec.engine import Engine, History, Query
from mmrec.serving.live import LiveExport

K = 10
SHARES = {"recommend": 0.5, "similar": 0.25, "text": 0.1, "items": 0.1, "image": 0.05}


@dataclass(frozen=True)
class Question:
    """One request, and the same asked of the engine."""

    route: str
    request: bytes
    call: Callable[[Engine], object]


@dataclass(frozen=True)
class Answer:
    route: str
    seconds: float
    status: int = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path, help="folder made by `mmrec export`")
    parser.add_argument("--requests", type=int, default=10_000, help="questions under load")
    parser.add_argument("--connections", type=int, default=32, help="connections that ask at once")
    parser.add_argument("--alone", type=int, default=1_000, help="questions asked one after the other")
    arguments = parser.parse_args()
    engine = LiveExport(arguments.export).current.engine
    kinds = np.random.default_rng(0).choice(list(SHARES), size=arguments.requests, p=list(SHARES.values())).tolist()
    questions = [_question(engine, kind, np.random.default_rng([0, n])) for n, kind in enumerate(kinds)]
    few = questions[: arguments.alone]
    with _server(arguments.export) as (address, process_id):
        asyncio.run(_ask(address, few[:200], arguments.connections))  # whatever comes but once
        started, cpu_before_s = time.perf_counter(), _cpu_s(process_id)
        loaded = asyncio.run(_ask(address, questions, arguments.connections))
        wall_s, cpu_s = time.perf_counter() - started, _cpu_s(process_id) - cpu_before_s
        alone = asyncio.run(_ask(address, few, 1))
    cpu_before = time.process_time()
    bare = [_called(engine, question) for question in few]
    engine_cpu_s = time.process_time() - cpu_before
    _print(loaded, alone, bare)
    errors = sum(answer.status != 200 for answer in loaded + alone)
    rate = len(loaded) / wall_s
    print(f"{len(loaded):,} requests over {arguments.connections} connections: {rate:,.0f} a second, {errors} errors")
    mine, theirs = cpu_s / len(loaded) * 1e3, engine_cpu_s / len(few) * 1e3
    print(f"CPU: server {mine:.1f} ms a request, engine {theirs:.1f} ms a question")
    sys.exit(bool(errors))


def _question(engine: Engine, kind: str, generator: np.random.Generator) -> Question:
    ids = engine.export.id_column
    drawn = [ids[row].as_py() for row in generator.choice(len(ids), size=5, replace=False).tolist()]
    if kind == "recommend":
        body = {"histories": [{"items": drawn}], "k": K}
        return Question(kind, _json_request("/recommend", body), lambda e: e.recommend(History(items=drawn), K))
    if kind == "similar":
        request = _json_request("/similar", {"items": drawn[:1], "k": K})
        return Question(kind, request, lambda e: e.search(Query(items=drawn[:1]), K))
    if kind == "text":
        titles = engine.export.title_column
        text = " ".join(titles[row].as_py() for row in generator.integers(len(ids), size=2).tolist())
        request = _json_request("/search", {"queries": [{"text": text}], "k": K})
        return Question(kind, request, lambda e: e.search(Query(record={"text": text}), K))
    if kind == "items":
        request = f"GET /items/{quote(drawn[0], safe='')} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        return Question(kind, request, lambda e: e.export.modalities_of(e.export.item_index(drawn[0])))
    picture = _picture(generator)
    return Question(kind, _form_request("/search", picture), lambda e: e.search(Query(record={"image": picture}), K))


def _json_request(path: str, body: Any) -> bytes:
    return _request(path, "application/json", json.dumps(body).encode())


def _form_request(path: str, picture: bytes) -> bytes:
    head = b'--edge\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
    return _request(path, "multipart/form-data; boundary=edge", head + picture + b"\r\n--edge--\r\n")


def _request(path: str, kind: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _picture(generator: np.random.Generator) -> bytes:
    """A JPEG of 320 x 240, smooth as photographs are."""
    coarse = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    coarse.resize((320, 240), Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


@contextmanager
def _server(export: Path) -> Iterator[tuple[str, int]]:
    """Its address and the id of its process."""
    command = [sys.executable, "-m", "mmrec", "serve", str(export), "--port", "0", "--timeout-s", "120"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split(" at ")[1].split()[0], process.pid
    finally:
        process.terminate()
        process.wait()


def _cpu_s(process_id: int) -> float:
    """CPU that a process has used, its children not."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _ask(address: str, questions: Sequence[Question], connections: int) -> list[Answer]:
    """The answers, in the order in which they came."""
    waiting, answers = iter(questions), []
    place = urlsplit(address)

    async def one_connection() -> None:
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        for question in waiting:
            started = time.perf_counter()
            writer.write(question.request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            answers.append(Answer(question.route, time.perf_counter() - started, int(head.split()[1])))
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(one_connection() for _ in range(connections)))
    return answers


def _called(engine: Engine, question: Question) -> Answer:
    started = time.perf_counter()
    question.call(engine)
    return Answer(question.route, time.perf_counter() - started)


def _print(loaded: list[Answer], alone: list[Answer], bare: list[Answer]) -> None:
    table = Table(title="milliseconds", title_justify="left")
    for heading in ("route", "requests", "load p50", "load p99", "alone p50", "engine p50", "overhead"):
        table.add_column(heading, justify="left" if heading == "route" else "right")
    for route in ("all", *SHARES):
        under_load, one, engine = (
            np.array([answer.seconds for answer in some if route in ("all", answer.route)]) * 1e3
            for some in (loaded, alone, bare)
        )
        medians = np.median(one), np.median(engine)
        numbers = (*np.percentile(under_load, (50, 99)), *medians, medians[0] - medians[1])
        table.add_row(route, f"{len(under_load):,}", *(f"{number:.1f}" for number in numbers))
    Console().print(table)


if __name__ == "__main__":
    main()
