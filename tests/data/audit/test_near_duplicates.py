"""Media that are nearly the same are found, others are not, and few are compared with few."""

from __future__ import annotations

import io
import itertools
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from mmrec.data.audit import near_duplicate_lines, near_duplicates
from mmrec.data.audit.fingerprints import fingerprint, perceptual_hash
from mmrec.data.audit.near_duplicates import near_pairs, normalised
from mmrec.data.dataset import Dataset
from mmrec.data.ingest import IngestConfig, ingest
from tests.conftest import jpeg_bytes, wav_bytes


def picture(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Soft random shapes in colour: as much like a photograph as a few numbers are."""
    coarse = np.random.default_rng(seed).integers(30, 200, (9, 12, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


CHANGES = {
    "another quality": lambda image: jpeg(image, quality=30),
    "half the size": lambda image: jpeg(image.resize((image.width // 2, image.height // 2))),
    "twice the size": lambda image: jpeg(image.resize((image.width * 2, image.height * 2))),
    "brighter": lambda image: jpeg(ImageEnhance.Brightness(image).enhance(1.2)),
    "darker": lambda image: jpeg(ImageEnhance.Brightness(image).enhance(0.7)),
}


def dataset_of(folder, files: dict[str, bytes], modality: str) -> Dataset:
    """One item for each file, stored as it is; its id is the file's name without the ending."""
    for name, data in files.items():
        (folder / name).write_bytes(data)
    ids = [name.partition(".")[0] for name in files]
    pl.DataFrame({"item_id": ids, modality: list(files)}).write_csv(folder / "items.csv")
    events = {"user_id": ["u"] * len(ids), "item_id": ids, "timestamp": range(len(ids))}
    pl.DataFrame(events).write_csv(folder / "interactions.csv")
    tables = {name: folder / f"{name}.csv" for name in ("items", "interactions")}
    as_they_are = {"image_side_px": 0, "video_side_px": 0}
    return Dataset.open(ingest(IngestConfig(**tables, **as_they_are, out=folder / "dataset", num_workers=1)))


def groups(dataset: Dataset, **most) -> list[set[str]]:
    (found,) = near_duplicates(dataset, **most)
    return [{str(dataset.item_ids[item]) for item in group} for group in found.groups]


@pytest.mark.parametrize("change", CHANGES)
def test_a_picture_and_its_changed_copy_are_one_group_and_others_are_none(tmp_path, change):
    files = {f"p{n}.jpg": jpeg(picture(n)) for n in range(12)}
    files["copy.jpg"] = CHANGES[change](picture(3))
    assert groups(dataset_of(tmp_path, files, "image")) == [{"p3", "copy"}]


def test_all_copies_of_one_picture_are_one_group(tmp_path):
    files = {f"p{n}.jpg": jpeg(picture(n)) for n in range(4)}
    files |= {f"c{n}.jpg": change(picture(1)) for n, change in enumerate(CHANGES.values())}
    assert groups(dataset_of(tmp_path, files, "image")) == [{"p1", "c0", "c1", "c2", "c3", "c4"}]


def test_different_pictures_are_never_the_same():
    found = [fingerprint("image", jpeg(picture(seed))) for seed in range(300)]
    assert all(one is not None for one in found)
    pairs = near_pairs(np.array([one.bits for one in found], dtype=np.uint64))
    assert max((float(found[i].sketch[0] @ found[j].sketch[0]) for i, j in pairs), default=0.0) < 0.9


def test_pictures_of_one_colour_are_not_compared(tmp_path):
    files = {f"{colour}.jpg": jpeg(Image.new("RGB", (64, 64), colour)) for colour in ("white", "snow", "black")}
    assert fingerprint("image", files["white.jpg"]) is None
    assert groups(dataset_of(tmp_path, files, "image")) == []


def test_the_pictures_of_the_tiny_dataset_are_all_different(tiny_dataset):
    assert [found.groups for found in near_duplicates(tiny_dataset)] == [[], [], [], []]


def melody(seed: int, sample_rate: int = 16_000) -> np.ndarray:
    """Eight tones of a third of a second."""
    generator = np.random.default_rng(seed)
    time = np.arange(sample_rate // 3) / sample_rate
    tones = [np.sin(2 * np.pi * f * time) + 0.4 * np.sin(4 * np.pi * f * time) for f in generator.uniform(150, 1500, 8)]
    return 0.3 * np.concatenate(tones)


def sound(samples: np.ndarray, sample_rate: int = 16_000, kind: str = "FLAC") -> bytes:
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate, format=kind)
    return buffer.getvalue()


def test_a_sound_in_another_coding_rate_and_loudness_is_found(tmp_path):
    files = {f"s{n}.flac": sound(melody(n)) for n in range(8)}
    files["ogg.ogg"] = sound(melody(2), kind="OGG")
    files["quiet.flac"] = sound(0.2 * melody(2))
    files["slow.flac"] = sound(melody(2, sample_rate=11_025), sample_rate=11_025)
    assert groups(dataset_of(tmp_path, files, "audio")) == [{"s2", "ogg", "quiet", "slow"}]


def test_tones_of_different_pitch_and_noises_are_different(tmp_path):
    files = {f"t{n}.wav": wav_bytes(200.0 + 30 * n) for n in range(8)}
    files |= {f"n{n}.flac": sound(np.random.default_rng(n).normal(0, 0.1, 16_000)) for n in range(4)}
    assert groups(dataset_of(tmp_path, files, "audio")) == []


def clip(seed: int, size: tuple[int, int] = (96, 64), crf: int = 20) -> bytes:
    """A camera that moves over a picture."""
    import av

    ground = picture(seed, (192, 128))
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=8, options={"crf": str(crf), "threads": "1"})
        stream.width, stream.height, stream.pix_fmt, stream.time_base = *size, "yuv420p", Fraction(1, 8)
        for n in range(12):
            seen = ground.crop((6 * n, 3 * n, 6 * n + 96, 3 * n + 64)).resize(size)
            frame = av.VideoFrame.from_ndarray(np.asarray(seen), format="rgb24")
            frame.pts = n
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def test_a_clip_of_another_size_and_quality_is_found(tmp_path):
    files = {f"v{n}.mp4": clip(n) for n in range(5)}
    files["small.mp4"] = clip(1, size=(64, 48))
    files["coarse.mp4"] = clip(1, crf=26)
    assert groups(dataset_of(tmp_path, files, "video")) == [{"v1", "small", "coarse"}]


def test_texts_that_differ_in_case_and_punctuation_are_found(tmp_path):
    table = {"item_id": ["a", "b", "c", "d"], "text": ["Red  lamp!", "red lamp", "red lamps", "…"]}
    pl.DataFrame(table).write_csv(tmp_path / "items.csv")
    (tmp_path / "interactions.csv").write_text("user_id,item_id,timestamp\nu,a,1\nu,b,2\n")
    tables = {name: tmp_path / f"{name}.csv" for name in ("items", "interactions")}
    dataset = Dataset.open(ingest(IngestConfig(**tables, out=tmp_path / "dataset", num_workers=1)))
    assert groups(dataset) == [{"a", "b"}]
    assert normalised("\uff32ed\n\tLAMP \u2013 №1") == "red lamp no1"


def test_of_many_media_a_sample_is_compared_and_the_line_says_so(tmp_path):
    files = {f"p{n}.jpg": jpeg(picture(n % 10), quality=50 + n // 10) for n in range(30)}
    dataset = dataset_of(tmp_path, files, "image")
    (all_of_them,) = near_duplicates(dataset)
    assert len(all_of_them.groups) == 10
    assert all(len(group) == 3 for group in all_of_them.groups)
    (found,) = near_duplicates(dataset, most={"image": 20})
    assert (found.num_compared, found.num_different) == (20, 30)
    (again,) = near_duplicates(dataset, most={"image": 20})
    assert list(map(list, again.groups)) == list(map(list, found.groups))
    (line,) = near_duplicate_lines(dataset, found)
    assert "items have nearly the image of another among a sample of 20 (in " in line


def test_byte_equal_media_are_looked_at_once(tmp_path):
    data = jpeg_bytes(0)
    (found,) = near_duplicates(dataset_of(tmp_path, {"a.jpg": data, "b.jpg": data, "c.jpg": jpeg_bytes(1)}, "image"))
    assert (found.num_different, found.groups) == (2, [])


def test_pairs_are_those_of_comparing_each_with_each():
    generator = np.random.default_rng(0)
    hashes = generator.integers(0, 2**64, 200, dtype=np.uint64)
    near = hashes[:100].copy()
    for row in range(100):
        for bit in generator.choice(64, size=row % 11, replace=False):
            near[row] ^= np.uint64(1) << np.uint64(bit)
    both = np.concatenate([hashes, near])
    expected = [
        [i, j] for i, j in itertools.combinations(range(300), 2) if (int(both[i]) ^ int(both[j])).bit_count() <= 7
    ]
    assert len(expected) >= 70
    assert near_pairs(both).tolist() == expected


def test_pairs_of_fifty_thousand_hashes_take_seconds():
    """Each with each would be 1.25 billion comparisons; the pairs that exist are found all the same."""
    generator = np.random.default_rng(1)
    hashes = generator.integers(0, 2**64, 50_000, dtype=np.uint64)
    hashes[1::2] = hashes[::2] ^ np.uint64(0b1001_0110)
    pairs = near_pairs(hashes)
    wanted = {(i, i + 1) for i in range(0, 50_000, 2)}
    assert wanted <= set(map(tuple, pairs.tolist()))
    assert len(pairs) < 25_000 + 100


def test_the_hash_depends_on_the_plane_but_not_on_its_level_and_scale():
    generator = np.random.default_rng(0)
    plane, other = generator.normal(size=(2, 32, 32)).cumsum(axis=1).cumsum(axis=2)
    assert perceptual_hash(plane) == perceptual_hash(3 * plane + 50)
    assert (perceptual_hash(plane) ^ perceptual_hash(other)).bit_count() > 7


def test_different_shapes_on_one_coloured_ground_are_different(tmp_path):
    def disc(across: int, down: int, ground: str) -> bytes:
        image = Image.new("RGB", (96, 96), ground)
        ImageDraw.Draw(image).ellipse((across - 14, down - 14, across + 14, down + 14), fill="grey")
        return jpeg(image)

    files = {"a.jpg": disc(75, 24, "#b000a0"), "b.jpg": disc(70, 33, "#f000b0"), "c.jpg": disc(66, 28, "#d000a8")}
    assert groups(dataset_of(tmp_path, files, "image")) == []
