"""A Hugging Face hub on this machine, as far as pushing and pulling ask it: repositories in memory, one branch."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


class HubServer(ThreadingHTTPServer):
    """Attributes: repositories: by USER/NAME, content by path; private: whether each was made so; commits: so far."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.commits = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextlib.contextmanager
def running_hub() -> Iterator[HubServer]:
    server = HubServer()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        parts, body = self._parts(), self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if parts[:3] == ["api", "repos", "create"]:
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'somebody'}/{asked['name']}"
            self.server.repositories.setdefault(name, {})
            self.server.private.setdefault(name, asked.get("private") or asked.get("visibility") == "private")
            self._json({"url": f"{self.server.url}/{name}", "id": name})
        elif parts[:2] == ["api", "validate-yaml"]:
            self._json({"errors": [], "warnings": []})
        elif parts[:2] == ["api", "models"] and parts[4] == "preupload":
            files = [one["path"] for one in json.loads(body)["files"]]
            self._json({"files": [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in files]})
        elif parts[:2] == ["api", "models"] and parts[4] == "commit":
            self._commit(self.server.repositories["/".join(parts[2:4])], body)
        else:
            self._refuse(404, "RepoNotFound")

    def do_GET(self) -> None:
        parts = self._parts()
        if parts[:2] == ["api", "models"]:
            files = self.server.repositories.get("/".join(parts[2:4]))
            if files is None:
                self._refuse(404, "RepoNotFound")
            elif parts[4:5] == ["tree"]:
                self._json([
                    {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for path, data in files.items()
                ])  # fmt: skip
            else:
                siblings = [{"rfilename": path} for path in files]
                self._json({"id": "/".join(parts[2:4]), "sha": self._sha(), "siblings": siblings})
            return
        files = self.server.repositories.get("/".join(parts[:2]))
        data = None if files is None else files.get("/".join(parts[4:]))
        if data is None:
            self._refuse(404, "RepoNotFound" if files is None else "EntryNotFound")
        else:
            self._send(200, data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": self._sha()})

    def do_HEAD(self) -> None:
        self.do_GET()

    def _commit(self, files: dict[str, bytes], body: bytes) -> None:
        self.server.commits += 1
        for line in body.splitlines():
            change = json.loads(line)
            if change["key"] == "file":
                assert change["value"]["encoding"] == "base64"
                files[change["value"]["path"]] = base64.b64decode(change["value"]["content"])
            elif change["key"] == "deletedFile":
                del files[change["value"]["path"]]
            else:
                assert change["key"] == "header"
        self._json({"commitUrl": f"{self.server.url}/u/n/commit/{self._sha()}", "commitOid": self._sha()})

    def _parts(self) -> list[str]:
        return unquote(urlsplit(self.path).path).strip("/").split("/")

    def _sha(self) -> str:
        return f"{self.server.commits:040x}"

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "Content-Type": "application/json"})

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        pass
