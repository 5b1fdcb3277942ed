"""The command that shows an export in the browser: explore."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path

import tyro

from mmrec.cli_serve import require_extra

__all__ = ["explore"]

Positional = tyro.conf.Positional


def explore(
    export: Positional[Path],
    data: str | None = None,
    compare: Path | None = None,
    port: int = 8765,
    browser: bool = True,
    max_upload_mb: float = 64.0,
) -> None:
    """See an export in the browser: search it, walk it, like and dislike, look at its map. For this machine alone.

    Args:
        export: folder made by `mmrec export`.
        data: dataset that the export was made of, for pictures, sounds and clips.
        compare: another export, to be asked the same beside it.
        port: port on this machine; 0: any free one.
        browser: open the page; else its address is printed alone.
        max_upload_mb: size of a file to search by, 10^6 bytes.
    """
    require_extra("mmrec explore")
    from mmrec.explore.app import build_explore_app
    from mmrec.serving.app import ServeSettings
    from mmrec.serving.server import run_server

    # One reader, who rather waits than is refused: first answers load models, maps of large exports take seconds.
    settings = ServeSettings(max_upload_mb=max_upload_mb, timeout_s=60.0, num_decoders=1)
    app = build_explore_app(export, settings, data=data, compare=compare)

    def started(address: str) -> None:
        print(f"{export} is at {address}  (Ctrl-C ends it)", flush=True)
        if data is None:
            print("without pictures, sounds and clips; --data DATASET shows them", flush=True)
        if browser and _has_screen():
            webbrowser.open(address)

    run_server(app, host="127.0.0.1", port=port, settings=settings, on_start=started)


def _has_screen() -> bool:
    """Without one a browser of the terminal would be started, in the terminal where this runs."""
    is_local = sys.platform in ("darwin", "win32")
    return is_local or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
