"""Real odd and broken files on their way into foundation encoders: the right input, or one clear line."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from mmrec.errors import MediaError
from tests.modality_encoders.tiny_networks import WRITERS, make

NAMES = {"image": "clip", "audio": "whisper", "video": "videomae"}


@pytest.fixture(scope="module")
def encoders(tiny_dataset, tmp_path_factory):
    root = tmp_path_factory.mktemp("networks")

    def folder(name: str):
        if not (root / name).exists():
            (root / name).mkdir()
            WRITERS[name](root / name)
        return root / name

    made = {kind: make(kind, f"transformers:{name}", folder, tiny_dataset) for kind, name in NAMES.items()}
    return {kind: (preprocessing, module) for kind, (_, preprocessing, module, _) in made.items()}


@pytest.mark.filterwarnings("ignore")  # Pillow's own, which mmrec silences and pytest turns on again
@torch.no_grad()
def test_every_odd_file_gives_features_or_one_line(shared_data, encoders):
    folder = shared_data / "odd_media"
    with (folder / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    used, refused = 0, {}
    for row in rows:
        preprocessing, module = encoders[row["kind"]]
        try:
            sample = preprocessing((folder / row["file"]).read_bytes())
        except MediaError as error:
            refused[row["file"]] = (row["outcome"], str(error))
            continue
        features, mask = module.features(preprocessing.collate([sample]))
        assert features[mask].isfinite().all(), row["file"]
        used += 1
    assert used > 50
    assert len(refused) > 15
    assert all(outcome != "ok" and "\n" not in message for outcome, message in refused.values()), refused


def over_white(picture: Image.Image) -> Image.Image:
    rgba = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)


AS_PILLOW = {
    "pil_sample_cmyk.jpg": lambda picture: picture.convert("RGB"),
    "hopper_orientation_6.jpg": ImageOps.exif_transpose,
    "hopper_gray.jpg": lambda picture: picture.convert("RGB"),
    "p_trns_single.png": over_white,
    "transparent.png": over_white,
    "mode_16bit.png": over_white,
    "16bit.cropped.tif": lambda picture: Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("file", AS_PILLOW)
def test_odd_pictures_reach_the_network_as_the_librarys_own_processor_sees_them(file, shared_data, encoders):
    from transformers import CLIPImageProcessor

    preprocessing, _ = encoders["image"]
    raw = (shared_data / "odd_media" / "image" / file).read_bytes()
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    picture = AS_PILLOW[file](Image.open(io.BytesIO(raw))).convert("RGB")
    expected = processor(picture, return_tensors="pt")["pixel_values"]
    found = preprocessing.transform.normalise(preprocessing.collate([preprocessing(raw)])["values"])
    assert (found - expected).abs().max() < 2.5 / 255 / min(preprocessing.transform.std), "two steps of 8 bits"


@torch.no_grad()
def test_a_clip_that_was_filmed_sideways_is_seen_upright(shared_data, encoders):
    preprocessing, _ = encoders["video"]
    folder = shared_data / "odd_media" / "video"
    upright, half = (
        preprocessing((folder / f"video_{angle}.mov").read_bytes()).astype(np.float32) for angle in (0, 180)
    )
    assert upright.shape == half.shape == (4, 3, 32, 32)


def test_sounds_of_any_rate_and_depth_are_heard_at_the_rate_of_the_network(shared_data, encoders):
    preprocessing, _ = encoders["audio"]
    folder = shared_data / "odd_media" / "audio"
    deep, plain = (preprocessing((folder / f"sine_mono_{kind}.wav").read_bytes()) for kind in ("s32", "s16"))
    loudest = [np.asarray(record["values"])[:, : int(record["length"])].mean(1).argmax() for record in (deep, plain)]
    assert loudest[0] == loudest[1], "the same tone"
