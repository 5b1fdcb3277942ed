"""Decoders that hang, crash or dawdle: Pillow, changed in every process that a build starts, by the picture's size."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from mmrec.data.ingest import IngestConfig

HANGS, CRASHES, DAWDLES = 61, 62, 63  # side in pixels

# Python runs a module of this name when it starts.
SITECUSTOMIZE = f"""
import ctypes, os, pathlib, time
from PIL import ImageFile

marks, load = pathlib.Path(os.environ["MARKS"]), ImageFile.ImageFile.load

def raylet():
    pid = os.getpid()
    while pid > 1:
        name, _, rest = pathlib.Path(f"/proc/{{pid}}/stat").read_text().rpartition(")")
        if name.endswith("(raylet"):
            return pid
        pid = int(rest.split()[1])
    return 0

def changed(self):
    (marks / str(raylet())).touch()
    if self.size[0] == {HANGS}:
        ctypes.PyDLL(None).sleep(3600)  # foreign code that holds the interpreter's lock
    if self.size[0] == {CRASHES}:
        ctypes.string_at(0)
    if self.size[0] == {DAWDLES}:
        time.sleep(0.25)
    return load(self)

ImageFile.ImageFile.load = changed
"""


def environment(folder: Path) -> dict[str, str]:
    """What makes the decoders of new processes bad; ``folder/marks`` gets a file for each Ray node that decodes."""
    (folder / "marks").mkdir(parents=True)
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
    root = str(Path(__file__).resolve().parents[2])
    return {"PYTHONPATH": os.pathsep.join([str(folder), root]), "MARKS": str(folder / "marks")}


def write_pictures(root: Path, sides: list[int]) -> IngestConfig:
    """One PNG an item, of noise, and an event for each."""
    (root / "media").mkdir(parents=True)
    noise = np.random.default_rng(0)
    for n, side in enumerate(sides):
        buffer = io.BytesIO()
        Image.fromarray(noise.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(buffer, "PNG")
        # What stands behind the end of a picture is no part of it, and makes units of a few pictures.
        (root / "media" / f"{n}.png").write_bytes(buffer.getvalue() + bytes(200_000))
    rows = {"item_id": [f"i{n}" for n in range(len(sides))], "image": [f"media/{n}.png" for n in range(len(sides))]}
    pl.DataFrame(rows).write_csv(root / "items.csv")
    events = {"user_id": "u", "item_id": rows["item_id"], "timestamp": range(len(sides))}
    pl.DataFrame(events).write_csv(root / "events.csv")
    config = IngestConfig(items=root / "items.csv", interactions=root / "events.csv", out=root / "out", name="n")
    return replace(config, shard_size_mb=1, medium_timeout_s=3.0, num_workers=2)
