"""Pictures, sounds and clips: what the preprocessing hands on, and which towers are taken."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmrec.errors import ConfigError, MediaError
from mmrec.modality_encoders import AudioConfig, ImageConfig, VideoConfig
from mmrec.modality_encoders.timm_tower import timm_tower

EVERYTHING = np.ones(24, dtype=bool)


@pytest.mark.parametrize("name", ["test_convnext", "test_vit"])
def test_a_tower_takes_the_size_that_it_is_given(name):
    tower, width = timm_tower(name, (48, 80), channels=1)
    assert tower(torch.zeros(2, 1, 48, 80)).shape == (2, width)


@pytest.mark.parametrize(
    ("name", "size_px", "patch_px", "message"),
    [
        ("test_convnxt", (64, 64), None, "unknown timm tower 'test_convnxt'; perhaps you meant 'test_convnext'"),
        ("resnet10t", (64, 64), None, "batch normalisation"),
        ("test_convnext", (64, 64), 8, "does not cut its input into patches; set patch_px=0"),
        ("test_vit", (48, 50), 12, "does not take inputs of 48 x 50"),
    ],
)
def test_towers_that_cannot_be_used_are_errors(name, size_px, patch_px, message):
    with pytest.raises(ConfigError, match=message):
        timm_tower(name, size_px, patch_px=patch_px)


def test_the_look_at_a_tower_draws_no_random_numbers():
    """Only the tower itself does, so that a seed gives the same model whatever is checked."""
    import timm

    torch.manual_seed(5)
    expected = timm.create_model("test_convnext", num_classes=0).state_dict()
    torch.manual_seed(5)
    found = timm_tower("test_convnext", (64, 64))[0].state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_picture_becomes_a_small_square(tiny_dataset):
    preprocessing = ImageConfig(size_px=32).fit(tiny_dataset, "image", EVERYTHING)
    index = int(np.flatnonzero(tiny_dataset.present("image"))[0])
    sample = preprocessing(tiny_dataset.read("image", index))
    assert sample.shape == (3, 32, 32)
    assert sample.dtype == np.uint8


def test_a_sound_becomes_a_spectrogram_with_its_tone_in_the_right_band(tiny_dataset):
    config = AudioConfig()
    preprocessing = config.fit(tiny_dataset, "audio", EVERYTHING)
    index = tiny_dataset.item_index("i21")  # 220 + 20 * 21 = 640 Hz
    sample = preprocessing(tiny_dataset.read("audio", index))
    assert sample.shape == (1, config.num_mels, config.num_columns)
    mel = lambda hertz: 2595 * np.log10(1 + hertz / 700)  # noqa: E731  the scale's definition
    expected = mel(640.0) / mel(8000.0) * (config.num_mels + 1) - 1
    assert sample[0, :, 5].argmax() == pytest.approx(expected, abs=1.0)
    assert (sample[0, :, 20:] == sample.min()).all(), "half a second of tone, then silence"


def test_frames_of_a_clip_keep_their_order(tiny_dataset):
    preprocessing = VideoConfig(num_frames=4, size_px=48).fit(tiny_dataset, "video", EVERYTHING)
    index = tiny_dataset.item_index("i07")  # frame n has brightness 20 n
    sample = preprocessing(tiny_dataset.read("video", index))
    assert sample.shape == (4, 3, 48, 48)
    assert (np.diff(sample.mean((1, 2, 3))) > 10).all()


def test_a_video_encoder_tells_a_clip_from_the_clip_backwards(tiny_dataset):
    config = VideoConfig()
    preprocessing = config.fit(tiny_dataset, "video", EVERYTHING)
    torch.manual_seed(0)
    encoder = config.build(8, preprocessing).eval()
    frames = preprocessing(tiny_dataset.read("video", tiny_dataset.item_index("i07")))
    forwards, backwards = (encoder(preprocessing.collate([clip]))[0] for clip in (frames, frames[::-1].copy()))
    assert (forwards.mean(1) - backwards.mean(1)).abs().max() > 1e-4


def test_missing_frames_do_not_change_the_real_ones(tiny_dataset):
    config = VideoConfig()
    preprocessing = config.fit(tiny_dataset, "video", EVERYTHING)
    torch.manual_seed(0)
    encoder = config.build(8, preprocessing).eval()
    frames = preprocessing(tiny_dataset.read("video", tiny_dataset.item_index("i07")))
    inputs = preprocessing.collate([frames[:2]])
    disturbed = {"values": inputs["values"].clone(), "mask": inputs["mask"]}
    disturbed["values"][:, 2:] = 255
    assert inputs["mask"].tolist() == [[True, True, False, False]]
    torch.testing.assert_close(encoder(inputs)[0][:, :2], encoder(disturbed)[0][:, :2], atol=0, rtol=0)


def test_temporal_heads_that_do_not_divide_the_width_are_an_error(tiny_dataset):
    config = VideoConfig(num_heads=5)
    with pytest.raises(ConfigError, match="num_heads is 5; it must divide the width 64"):
        config.build(8, config.fit(tiny_dataset, "video", EVERYTHING))


@pytest.mark.parametrize("config", [ImageConfig(), AudioConfig(), VideoConfig()], ids=["image", "audio", "video"])
def test_bytes_that_are_no_medium_are_media_errors(config, tiny_dataset):
    modality = type(config).__name__.removesuffix("Config").lower()
    preprocessing = config.fit(tiny_dataset, modality, EVERYTHING)
    with pytest.raises(MediaError):
        preprocessing(b"<html>not found</html>" * 20)


def test_chunks_keep_the_memory_of_a_step_from_growing_with_its_items():
    """Bytes that autograd keeps for the backward pass: all activations at once, or a chunk's inputs alone."""
    from mmrec.item_encoder import ItemEncoderConfig
    from mmrec.item_inputs import ItemInputs
    from mmrec.modality_encoders import ImageConfig
    from mmrec.modality_encoders.image import ImagePreprocessing

    def kept_bytes(num_items: int, chunk_items: int) -> int:
        preprocessing = ImagePreprocessing(size_px=32)
        config = ItemEncoderConfig(encoders={"image": ImageConfig(size_px=32)}, dim=8, chunk_items=chunk_items)
        torch.manual_seed(0)
        encoder = config.build({"image": preprocessing})
        pictures = np.random.default_rng(0).integers(0, 256, (num_items, 3, 32, 32), dtype=np.uint8)
        batch = ItemInputs({"image": preprocessing}).batch(
            np.arange(num_items), np.ones((num_items, 1), dtype=bool), {"image": list(pictures)}
        )
        kept: dict[int, int] = {}

        def pack(value: torch.Tensor) -> torch.Tensor:
            if value.is_floating_point():
                kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
            return value

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
            vectors = encoder(replace(batch, keys=torch.arange(num_items)))
        vectors.sum().backward()
        return sum(kept.values())

    plain = [kept_bytes(count, 0) for count in (8, 32)]
    chunked = [kept_bytes(count, 4) for count in (8, 32)]
    assert plain[1] > 2.5 * plain[0], "activations grow with the items"
    assert chunked[1] - chunked[0] < (plain[1] - plain[0]) / 20
