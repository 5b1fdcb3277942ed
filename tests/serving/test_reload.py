"""A new export takes the place of the old: no request fails, and each answer is from one of them as a whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

TOKEN = "a token of tests"
HEADERS = {"authorization": f"Bearer {TOKEN}"}


def retitled(export: Path, out: Path, prefix: str) -> Path:
    """A copy in which each title begins with ``prefix``, so that an answer tells where it is from."""
    shutil.copytree(export, out)
    table = pq.read_table(out / "items.parquet")
    titles = pa.array([f"{prefix}: {title}" for title in table["title"].to_pylist()], pa.string())
    pq.write_table(table.set_column(table.column_names.index("title"), "title", titles), out / "items.parquet")
    data = (out / "items.parquet").read_bytes()
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["files"]["items.parquet"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (out / "manifest.json").write_text(json.dumps(manifest))
    return out


@pytest.fixture
def exports(served_export, tmp_path) -> dict[str, Path]:
    return {name: retitled(served_export, tmp_path / name, name) for name in ("one", "two")}


def point(link: Path, target: Path) -> None:
    """Move a symbolic link in one step."""
    new = link.with_suffix(".new")
    new.symlink_to(target)
    os.replace(new, link)


def served(client: httpx.Client) -> str:
    return client.get("/items/i01", headers=HEADERS).json()["title"].partition(":")[0]


def until(client: httpx.Client, name: str) -> None:
    end = time.monotonic() + 120
    while served(client) != name:
        assert time.monotonic() < end, f"{name} is not served: {client.get('/health').json()}"
        time.sleep(0.1)


def test_under_load_each_answer_is_of_one_export_and_none_fails(exports, serve, tmp_path):
    link = tmp_path / "current"
    point(link, exports["one"])
    answers: list[tuple[int, str, set[str]]] = []
    done = threading.Event()

    def ask(client: httpx.Client) -> None:
        body = {"histories": [{"items": ["i01"]}, {"items": ["i05", "i07"]}], "k": 10}
        with httpx.Client(base_url=client.base_url, headers=HEADERS, timeout=120) as own:
            while not done.is_set():
                response = own.post("/recommend", json=body)
                titles = {hit["title"].partition(":")[0] for hits in response.json()["results"] for hit in hits}
                answers.append((response.status_code, response.headers["x-export"], titles))

    with serve(link, token=TOKEN, timeout_s=60) as client:
        threads = [threading.Thread(target=ask, args=(client,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        identities = {}
        for name in ("two", "one", "two", "one"):
            time.sleep(0.3)
            point(link, exports[name])
            reloaded = client.post("/reload", headers=HEADERS).json()
            assert reloaded["reloaded"]
            identities[reloaded["export"]] = {name}
        done.set()
        for thread in threads:
            thread.join()
        assert "mmrec_reloads 4.0" in client.get("/metrics", headers=HEADERS).text
    assert len(identities) == 2
    assert len(answers) > 20
    assert {status for status, _, _ in answers} == {200}
    assert all(titles == identities[export] for _, export, titles in answers)
    assert {export for _, export, _ in answers} == set(identities)


def test_a_damaged_export_is_not_served_and_health_says_so(exports, serve, tmp_path):
    link = tmp_path / "current"
    point(link, exports["one"])
    damaged = exports["two"] / "model" / "model.safetensors"
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    with serve(link, token=TOKEN, timeout_s=60) as client:
        before = client.get("/health").json()
        point(link, exports["two"])
        response = client.post("/reload", headers=HEADERS)
        assert response.status_code == 400
        assert "is damaged" in response.json()["error"]
        health = client.get("/health").json()
        assert (health["status"], health["export"]) == ("reload failed", before["export"])
        assert "model.safetensors" in health["reload_error"]
        assert str(tmp_path) not in response.text + json.dumps(health)
        assert served(client) == "one"
        assert "mmrec_reload_failed 1.0" in client.get("/metrics", headers=HEADERS).text
        point(link, exports["one"])
        assert client.post("/reload", headers=HEADERS).json() == {"reloaded": False, "export": before["export"]}
        assert client.get("/health").json() == before


def test_a_folder_is_watched_and_may_change_under_the_server(exports, serve, tmp_path):
    folder = tmp_path / "folder"
    shutil.copytree(exports["one"], folder)
    with serve(folder, token=TOKEN, timeout_s=60, reload_s=0.1) as client:
        assert served(client) == "one"
        os.remove(folder / "manifest.json")  # as an export that begins anew does
        time.sleep(0.5)
        shutil.rmtree(folder / "model")
        assert client.get("/health").json()["status"] == "reload failed"
        recommended = client.post("/recommend", json={"histories": [{"items": ["i01"]}]}, headers=HEADERS)
        assert {hit["title"].partition(":")[0] for hit in recommended.json()["results"][0]} == {"one"}
        embedded = client.post("/embed", json={"records": [{"text": "a red thing"}]}, headers=HEADERS)
        assert embedded.status_code == 200
        shutil.copytree(exports["two"], folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))
        shutil.copy(exports["two"] / "manifest.json", folder / "manifest.new")
        os.replace(folder / "manifest.new", folder / "manifest.json")
        until(client, "two")
        assert client.get("/health").json()["status"] == "ok"
