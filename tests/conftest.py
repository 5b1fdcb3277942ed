"""Fixtures that several test folders share: a tiny dataset with everything in it, and the real data where it is."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub: no test goes to the network
os.environ.setdefault("OMP_NUM_THREADS", "1")

import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import polars as pl
import pytest

SHARED_DATA = Path(__file__).resolve().parents[1] / "../shared/data"

NUM_ITEMS = 24
NUM_USERS = 30


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> None:
    """Test processes share the machine; the networks here are too small to gain from threads."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def cache_of_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The cache of this test alone; stores that do not answer are asked again at once, memory:// ends up empty."""
    from fsspec.implementations.memory import MemoryFileSystem

    from mmrec.data import store

    monkeypatch.setenv("MMREC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "BACKOFF_S", 0.0001)
    yield tmp_path / "cache"
    MemoryFileSystem.store.clear()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; tests that need it are skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real data of ../shared/data is not on this machine")
    return SHARED_DATA.resolve()


@pytest.fixture(scope="session")
def tiny_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's own folder: items.csv, interactions.csv, vec.npy, media/.

    24 items; item n has, unless stated, a title, a picture (n % 5 != 4), a sound (n % 3 == 0), a clip (n % 6 == 1), a
    vector (n % 7 != 6). Item 2's picture is cut off; item 23 has nothing but its id. 30 users with 3 to 9 events in
    time, user 29 with one; items 20 to 23 come late and seldom.
    """
    root = tmp_path_factory.mktemp("tiny_source")
    (root / "media").mkdir()
    generator = np.random.default_rng(0)
    rows = [_make_item(root, n) for n in range(NUM_ITEMS)]
    pl.DataFrame(rows).write_csv(root / "items.csv")
    vectors = generator.standard_normal((NUM_ITEMS, 8)).astype(np.float32)
    vectors[6::7] = np.nan
    vectors[NUM_ITEMS - 1] = np.nan
    np.save(root / "vec.npy", vectors)
    _make_interactions(generator).write_csv(root / "interactions.csv")
    return root


@pytest.fixture(scope="session")
def tiny_dataset_path(tiny_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset folder that ``ingest`` makes of ``tiny_source``; read only."""
    from mmrec.data.ingest import IngestConfig, ingest

    return ingest(
        IngestConfig(
            items=tiny_source / "items.csv",
            interactions=tiny_source / "interactions.csv",
            features=(f"vec={tiny_source / 'vec.npy'}",),
            text_columns=("title", "description"),
            out=tmp_path_factory.mktemp("tiny") / "dataset",
            name="tiny",
            num_workers=2,
        )
    )


@pytest.fixture(scope="session")
def tiny_dataset(tiny_dataset_path: Path):
    """``tiny_dataset_path``, opened."""
    from mmrec.data.dataset import Dataset

    return Dataset.open(tiny_dataset_path)


def _make_item(root: Path, n: int) -> dict[str, str | None]:
    colours = ("red", "green", "blue", "grey")
    row: dict[str, str | None] = {"item_id": f"i{n:02d}", "title": f"{colours[n % 4]} thing {n}", "description": None}
    row |= {"image": None, "audio": None, "video": None, "category": colours[n % 4]}
    if n == NUM_ITEMS - 1:
        return row | {"title": None}
    if n % 2:
        row["description"] = f"A {colours[n % 4]} thing that hums at {220 + 20 * n} hertz."
    if n % 5 != 4:
        row["image"] = f"media/{n:02d}.jpg"
        picture = jpeg_bytes(n)
        (root / row["image"]).write_bytes(picture[: len(picture) // 2] if n == 2 else picture)
    if n % 3 == 0:
        row["audio"] = f"media/{n:02d}.wav"
        (root / row["audio"]).write_bytes(wav_bytes(220.0 + 20 * n))
    if n % 6 == 1:
        row["video"] = f"media/{n:02d}.mp4"
        (root / row["video"]).write_bytes(mp4_bytes(n))
    return row


def _make_interactions(generator: np.random.Generator) -> pl.DataFrame:
    weights = np.where(np.arange(NUM_ITEMS) < 20, 1.0, 0.1)
    rows = []
    for user in range(NUM_USERS):
        length = 1 if user == NUM_USERS - 1 else int(generator.integers(3, 10))
        items = generator.choice(NUM_ITEMS, size=length, replace=False, p=weights / weights.sum())
        start = 1_600_000_000 + int(generator.integers(0, 10_000_000))
        rows += [
            {"user_id": f"u{user:02d}", "item_id": f"i{item:02d}", "timestamp": start + 3600 * n}
            for n, item in enumerate(items)
        ]
    return pl.DataFrame(rows)


def jpeg_bytes(seed: int, size: tuple[int, int] = (48, 40)) -> bytes:
    """A JPEG of noise around one colour. ``size`` is (width, height)."""
    from PIL import Image

    generator = np.random.default_rng(seed)
    colour = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [128, 128, 128]])[seed % 4]
    pixels = np.clip(colour + generator.normal(0, 20, (size[1], size[0], 3)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def wav_bytes(frequency: float, duration_s: float = 0.5, sample_rate: int = 8000, amplitude: float = 0.5) -> bytes:
    """A sine tone as 16-bit mono WAV."""
    import soundfile

    samples = amplitude * np.sin(2 * np.pi * frequency * np.arange(int(duration_s * sample_rate)) / sample_rate)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def mp3_bytes(seed: int, duration_s: float = 2.0, sample_rate: int = 44_100) -> bytes:
    """Noise as mono MP3."""
    import soundfile

    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, int(duration_s * sample_rate))
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate, format="MP3")
    return buffer.getvalue()


def mp4_bytes(seed: int, num_frames: int = 12, fps: int = 8, size_px: int = 32, gop: int = 4) -> bytes:
    """An H.264 clip in which frame n is grey of brightness 20 * n (mod 240), plus a little of the seed."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"g": str(gop), "crf": "18", "threads": "1"})
        stream.width = stream.height = size_px
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, fps)
        for n in range(num_frames):
            pixels = np.full((size_px, size_px, 3), 20 * n % 240 + seed % 8, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = n
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()
