"""Pictures on their way in: what checking and normalising costs beside the bare operations under it.

    python -m eval.benchmarks.image_path --images media/posters --sides 96 256 512

``probe_and_normalise`` of JPEGs in two processes, beside bare torchvision in the same processes on the same files:
``decode_jpeg``, antialiased ``resize`` where the short side is larger, ``encode_jpeg`` at the same quality. Bytes lie
in memory; each process has one thread and takes every second file. Both work at once, and each takes the two paths in
turn, a few pictures at a time, so that whatever else the machine does falls on both. Rates are pictures a second of
the two processes together, the ratio that of ours to the bare one; medians of seven rounds after one to warm up.

Beside the files as they are, mosaics of them stand for larger pictures, with as much detail as small ones have; one
half bears EXIF, as photographs do (the bare operations do not read it, ours turns the picture upright).

Measured 2026-11-23, 2-core CPU that other work shared, 400 posters of 128 px and mosaics of 768, 1,920 and 3,072 px:
scaled to 96 px 1.04, 1.05, 1.35 and 1.39 times the bare rate, to 512 px (the mosaics) .99, .99 and 1.27 times. What
stays byte for byte is only checked: 1.6 times. Large JPEGs are ahead because they are decoded at a part of their size.

Measured 2026-11-26, 2-core CPU that other work shared (load 13; --sides 96 512): to 96 px .96, 1.04, 1.26 and 1.34
times, to 512 px (the mosaics) .92, 1.01 and 1.19 times; what is only checked 1.59.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from mmrec.media.normalise import JPEG_QUALITY, Normalisation, probe_and_normalise

PROCESSES = 2
ROUNDS = 7
# Pictures of one path before the other has its turn.
CHUNK = 4
# Files of the folder in one row and one column of a mosaic, and how many mosaics are made.
MOSAICS = {"mosaic of 6x4": (6, 4, 24), "mosaic of 16x10": (16, 10, 8), "mosaic of 24x16": (24, 16, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of JPEG files")
    parser.add_argument("--sides", type=int, nargs="+", default=[96, 256, 512], help="short sides to scale to, px")
    parser.add_argument("--files", type=int, default=400, help="files of the folder")
    arguments = parser.parse_args()
    files = [path.read_bytes() for path in sorted(arguments.images.glob("*.jpg"))[: arguments.files]]
    sets = {"files as they are": files} | {name: make_mosaics(files, *shape) for name, shape in MOSAICS.items()}
    table = Table("pictures", "size", "to px", "bare /s", "ours /s", "ratio", box=None)
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        for name, pictures in sets.items():
            for side in arguments.sides:
                size = short_side(pictures[0])
                bare_rate, our_rate, ratio = compare(pool, pictures, side)
                table.add_row(name, f"{size}", f"{side}", f"{bare_rate:,.0f}", f"{our_rate:,.0f}", f"{ratio:.2f}")
    Console().print(table)


def make_mosaics(files: Sequence[bytes], columns: int, rows: int, num_mosaics: int) -> list[bytes]:
    """Pictures of 128 x 192 px each side by side, another choice in each mosaic; EXIF in every second one."""
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 1
    mosaics = []
    for n in range(num_mosaics):
        mosaic = Image.new("RGB", (columns * 128, rows * 192))
        for k in range(columns * rows):
            data = files[(n * columns * rows + k) % len(files)]
            tile = Image.open(io.BytesIO(data)).convert("RGB").resize((128, 192))
            mosaic.paste(tile, (k % columns * 128, k // columns * 192))
        buffer = io.BytesIO()
        mosaic.save(buffer, "JPEG", quality=88, **({"exif": exif} if n % 2 else {}))
        mosaics.append(buffer.getvalue())
    return mosaics


def short_side(data: bytes) -> int:
    from PIL import Image

    return min(Image.open(io.BytesIO(data)).size)


def compare(pool: ProcessPoolExecutor, pictures: list[bytes], side: int) -> tuple[float, float, float]:
    """Pictures a second of the two processes together, bare and ours, and the ratio of ours to bare; medians."""
    rounds = []
    for _ in range(ROUNDS + 1):
        jobs = [pool.submit(run, pictures[k::PROCESSES], side) for k in range(PROCESSES)]
        bare_s, ours_s = np.max([job.result() for job in jobs], axis=0)  # the slower process ends the job
        rounds.append((len(pictures) / bare_s, len(pictures) / ours_s, bare_s / ours_s))
    bare_rate, our_rate, ratio = np.median(rounds[1:], axis=0)
    return float(bare_rate), float(our_rate), float(ratio)


def run(pictures: list[bytes], side: int) -> tuple[float, float]:
    """Seconds for all pictures: bare, ours."""
    import torch

    torch.set_num_threads(1)
    rules = Normalisation(image_side_px=side, video_side_px=0, audio_rate_hz=0)
    paths = (lambda data: bare(data, side), lambda data: probe_and_normalise("image", data, rules))
    seconds = [0.0, 0.0]
    for n, first in enumerate(range(0, len(pictures), CHUNK)):
        for path in ((0, 1), (1, 0))[n % 2]:
            start = time.perf_counter()
            for data in pictures[first : first + CHUNK]:
                paths[path](data)
            seconds[path] += time.perf_counter() - start
    return seconds[0], seconds[1]


def bare(data: bytes, side: int) -> bytes:
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg, encode_jpeg
    from torchvision.transforms.v2.functional import resize

    pixels: Any = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
    if min(pixels.shape[1:]) > side:
        pixels = resize(pixels, [side], antialias=True)
    encoded: Any = encode_jpeg(pixels.contiguous(), quality=JPEG_QUALITY)
    return encoded.numpy().tobytes()


if __name__ == "__main__":
    main()
