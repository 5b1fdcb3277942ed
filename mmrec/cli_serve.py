"""The command that answers over HTTP: serve."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import tyro

from mmrec.errors import ConfigError

__all__ = ["require_extra", "serve", "token_from"]

Positional = tyro.conf.Positional

TOKEN_VARIABLE = "MMREC_TOKEN"
_NEEDED = ("fastapi", "prometheus_client", "python_multipart", "uvicorn")


def serve(
    export: Positional[Path],
    host: str = "127.0.0.1",
    port: int = 8000,
    token_file: Path | None = None,
    max_upload_mb: float = 32.0,
    timeout_s: float = 10.0,
    max_concurrent: int = 64,
    max_k: int = 500,
    max_batch: int = 128,
    reload_s: float = 0.0,
) -> None:
    """Answer questions to an export over HTTP, as JSON: /recommend, /similar, /search, /embed, /items, and /docs.

    Args:
        export: folder made by `mmrec export`, or a symbolic link to one, which may be moved to a new one meanwhile.
        host: address to listen at. The default is for this machine alone; a proxy on it that passes the name it was
            asked for needs a token.
        port: port to listen at; 0: any free one.
        token_file: file with the token that clients must send, as "Authorization: Bearer TOKEN". Or set MMREC_TOKEN.
        max_upload_mb: size of a request, 10^6 bytes.
        timeout_s: seconds that a request may take to arrive, and again that its answer may take.
        max_concurrent: requests answered or waiting at once; more are told to come back in a second (429).
        max_k: answers to one question.
        max_batch: histories, items, queries or records of one request.
        reload_s: seconds between two looks whether there is a new export; 0: only when asked (POST /reload).
    """
    require_extra("mmrec serve")
    from mmrec.serving.app import ServeSettings, build_app
    from mmrec.serving.server import run_server
    from mmrec.serving.settings import LOOPBACK

    token = token_from(token_file)
    settings = ServeSettings(
        hosts=LOOPBACK if token is None and host in ("127.0.0.1", "::1", "localhost") else None,
        token=token,
        max_upload_mb=max_upload_mb,
        timeout_s=timeout_s,
        max_concurrent=max_concurrent,
        max_k=max_k,
        max_batch=max_batch,
        reload_s=reload_s,
    )
    app = build_app(export, settings)
    run_server(app, host=host, port=port, settings=settings, on_start=lambda url: _tell(url, export, settings.token))


def require_extra(command: str) -> None:
    """Raises: ConfigError if a package of the extra ``serve`` is missing; the line says what to install."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"{command} needs {', '.join(missing)}; install the extra: pip install 'mmrec[serve]'")


def token_from(token_file: Path | None) -> str | None:
    """The token of a file or of MMREC_TOKEN; None without either.

    Never an argument: other users of a machine can read those of every process.

    Raises: ConfigError if both are there, or the file is none or empty.
    """
    variable = os.environ.get(TOKEN_VARIABLE)
    if token_file is None:
        return variable or None
    if variable:
        raise ConfigError(f"there are both --token-file and {TOKEN_VARIABLE}; give one of them")
    if not token_file.is_file():
        raise ConfigError(f"--token-file {token_file} is no file; give one whose only line is the token")
    token = token_file.read_text(encoding="utf-8", errors="replace").strip()
    if not token:
        raise ConfigError(f"--token-file {token_file} is empty; its only line must be the token")
    return token


def _tell(url: str, export: Path, token: str | None) -> None:
    print(f"answering from {export} at {url}  (documentation: {url}/docs; Ctrl-C ends it)", flush=True)
    if token is None and not url.startswith(("http://127.", "http://localhost", "http://[::1]")):
        print(f"there is no token: everyone who can reach {url} may ask", flush=True)
