"""Each encoder's own preprocessing: what the library's processor gives, the same each time, alone and in a batch."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from mmrec.errors import ConfigError
from mmrec.media.video import decode_video
from mmrec.modality_encoders.foundation import FOUNDATION_ENCODERS
from mmrec.modality_encoders.foundation.kept_numbers import as_row, from_row
from tests.conftest import mp4_bytes
from tests.modality_encoders.tiny_networks import make


def everything(dataset) -> np.ndarray:
    return np.ones(dataset.num_items, dtype=bool)


def picture(width: int, height: int, seed: int = 0) -> bytes:
    """Smooth noise, as PNG."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


def opened(raw: bytes) -> Image.Image:
    return Image.open(io.BytesIO(raw)).convert("RGB")


SHAPES = [(77, 59), (59, 96), (33, 200), (16, 18), (32, 32)]


def stored(processor, folders, tmp_path, name: str = "dinov3"):
    """A copy of a network's folder with another processor."""
    folder = shutil.copytree(folders(name), tmp_path / "copy")
    (folder / "preprocessor_config.json").unlink()
    processor.save_pretrained(folder)
    return folder


def processors():
    from transformers import (
        BitImageProcessor,
        CLIPImageProcessor,
        ConvNextImageProcessor,
        SiglipImageProcessor,
        ViTImageProcessor,
    )

    square, short = {"height": 32, "width": 32}, {"shortest_edge": 32}
    return {
        "clip": CLIPImageProcessor(size=short, crop_size=square),
        "larger than the crop": BitImageProcessor(size={"shortest_edge": 38}, crop_size=square),
        "convnext": ConvNextImageProcessor(size=short),
        "siglip": SiglipImageProcessor(size=square),
        "not normalised": ViTImageProcessor(size=square, do_normalize=False),
        "rescaled": ViTImageProcessor(size=square, rescale_factor=1 / 127.5),
        "not rescaled": ViTImageProcessor(size=square, do_rescale=False),
    }


@pytest.mark.parametrize("kind", processors())
def test_pictures_of_any_shape_are_prepared_as_the_stored_processor_does_it(kind, folders, tiny_dataset, tmp_path):
    processor = processors()[kind]
    folder = stored(processor, folders, tmp_path)
    config = FOUNDATION_ENCODERS["image"](encoder=f"path:{folder}")
    preprocessing = config.fit(tiny_dataset, "image", everything(tiny_dataset))
    for width, height in SHAPES:
        raw = picture(width, height)
        expected = processor(opened(raw), return_tensors="pt")["pixel_values"]
        found = preprocessing.transform.normalise(preprocessing.collate([preprocessing(raw)])["values"])
        step = 1 / 255 / min(preprocessing.transform.std)
        assert (found - expected).abs().max() < 2.5 * step, "two steps of 8 bits"


def test_a_processor_that_does_something_else_is_refused(folders, tiny_dataset, tmp_path):
    from transformers import MobileViTImageProcessor, PoolFormerImageProcessor

    square = {"height": 32, "width": 32}
    for number, processor in enumerate(
        (MobileViTImageProcessor(size=square, do_center_crop=False), PoolFormerImageProcessor(crop_size=square))
    ):
        folder = stored(processor, folders, tmp_path / str(number))
        config = FOUNDATION_ENCODERS["image"](encoder=f"path:{folder}")
        with pytest.raises(ConfigError, match=r"ImageProcessor in a way that mmrec has not: .*; take another encoder"):
            config.fit(tiny_dataset, "image", everything(tiny_dataset))


def test_siglip_2_sees_pictures_in_their_own_proportions(folders, tiny_dataset):
    from transformers import AutoImageProcessor, Siglip2VisionModel

    _, preprocessing, module, _ = make("image", "transformers:siglip2", folders, tiny_dataset)
    processor = AutoImageProcessor.from_pretrained(folders("siglip2"))
    model = Siglip2VisionModel.from_pretrained(folders("siglip2")).eval()
    raws = [picture(width, height, seed=width) for width, height in [*SHAPES, (300, 8)]]
    inputs = preprocessing.collate([preprocessing(raw) for raw in raws])
    expected = processor([opened(raw) for raw in raws], return_tensors="pt")
    assert len({tuple(shape) for shape in inputs["shapes"].tolist()}) > 3
    assert torch.equal(inputs["shapes"], expected["spatial_shapes"])
    together = module.features(inputs)[0][:, 0]
    real = expected["pixel_attention_mask"].bool()
    found = preprocessing.transform.normalise(inputs["values"])
    assert (found - expected["pixel_values"])[real].abs().max() < 2.5 / 255 / 0.5
    exact = {**expected, "pixel_values": torch.where(real[..., None], found, 0.0)}
    with torch.no_grad():
        torch.testing.assert_close(together, model(**exact).pooler_output, atol=1e-5, rtol=1e-5)
    disturbed = {**inputs, "values": torch.where(real[..., None], inputs["values"], 200)}
    torch.testing.assert_close(module.features(disturbed)[0][:, 0], together, atol=0, rtol=0)
    for number, raw in enumerate(raws):
        alone = module.features(preprocessing.collate([preprocessing(raw)]))[0][0, 0]
        torch.testing.assert_close(alone, together[number], atol=1e-5, rtol=1e-5)


def test_a_picture_as_long_as_a_wall_takes_no_more_memory_than_it_has_to(folders, tiny_dataset):
    """Resized whole, to 32 pixels of height, it would be 32 x 4,000,000."""
    _, preprocessing, _, _ = make("image", "transformers:clip", folders, tiny_dataset)
    wall = np.zeros((1, 8, 1_000_000, 3), dtype=np.uint8)
    wall[:, :, 499_990:500_010] = 255
    assert preprocessing.transform(wall).shape == (1, 3, 32, 32)
    assert preprocessing.transform(wall).min() == 255, "its centre"


@pytest.mark.parametrize("family", ["videomae", "vjepa2"])
@pytest.mark.parametrize("size_px", [32, 48, 100])
def test_clips_are_prepared_as_the_stored_processor_does_it(family, size_px, folders, tiny_dataset):
    _, preprocessing, _, _ = make("video", f"transformers:{family}", folders, tiny_dataset)
    raw = mp4_bytes(1, size_px=size_px)
    frames = decode_video(raw, 4)[0]
    if family == "vjepa2":
        from transformers import AutoVideoProcessor

        processor = AutoVideoProcessor.from_pretrained(folders(family))
        clip = torch.from_numpy(frames).permute(0, 3, 1, 2)
        expected = processor([clip], do_sample_frames=False, return_tensors="pt")["pixel_values_videos"]
    else:
        from transformers import AutoImageProcessor

        processor = AutoImageProcessor.from_pretrained(folders(family))
        expected = processor([list(frames)], return_tensors="pt")["pixel_values"]
    found = preprocessing.transform.normalise(preprocessing.collate([preprocessing(raw)])["values"])
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 2.5 / 255 / min(preprocessing.transform.std)


def tone(duration_s: float, rate: int = 16_000, channels: int = 1, frequency: float = 440.0) -> bytes:
    import soundfile

    samples = 0.3 * np.sin(2 * np.pi * frequency * np.arange(int(duration_s * rate)) / rate)
    buffer = io.BytesIO()
    soundfile.write(buffer, np.repeat(samples[:, None], channels, 1), rate, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


def samples_of(duration_s: float, rate: int = 16_000) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * 440 * np.arange(int(duration_s * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize("truncation", ["rand_trunc", "fusion"])
def test_clap_hears_the_same_each_time_and_no_more_than_it_hears_at_once(truncation, folders, tiny_dataset, tmp_path):
    """Of longer sounds its extractor takes a part, or three parts, at random."""
    from transformers import ClapFeatureExtractor

    extractor = ClapFeatureExtractor(truncation=truncation, max_length_s=2)
    folder = stored(extractor, folders, tmp_path, "clap")
    config = json.loads((folder / "config.json").read_text())
    config["enable_fusion"] = truncation == "fusion"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"duration_s is 3; .* hears at most 2 s of a sound, and 0 takes that"):
        FOUNDATION_ENCODERS["audio"](encoder=f"path:{folder}", duration_s=3.0).fit(
            tiny_dataset, "audio", everything(tiny_dataset)
        )
    # The stored weights are not those of a network that fuses.
    encoder = f"path:{folder}" + ("@random" if truncation == "fusion" else "")
    fitted = FOUNDATION_ENCODERS["audio"](encoder=encoder).fit(tiny_dataset, "audio", everything(tiny_dataset))
    assert fitted.duration_s == 2.0
    raw = tone(5.0, 48_000)
    first, second = fitted(raw)["values"], fitted(raw)["values"]
    np.testing.assert_array_equal(first, second)
    expected = extractor(samples_of(2.0, 48_000), sampling_rate=48_000, return_tensors="np")["input_features"][0]
    np.testing.assert_allclose(first, expected, atol=1e-3)


def test_noise_that_an_extractor_adds_for_training_is_left_out(folders, tiny_dataset, tmp_path):
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor(feature_size=16, chunk_length=2, dither=0.1)
    folder = stored(extractor, folders, tmp_path, "whisper")
    fitted = FOUNDATION_ENCODERS["audio"](encoder=f"path:{folder}").fit(tiny_dataset, "audio", everything(tiny_dataset))
    np.testing.assert_array_equal(fitted(tone(1.0))["values"], fitted(tone(1.0))["values"])
    (tmp_path / "saved").mkdir()
    fitted.save(tmp_path / "saved")
    again = type(fitted).load(tmp_path / "saved")
    np.testing.assert_array_equal(again(tone(1.0))["values"], fitted(tone(1.0))["values"])


def test_an_extractor_that_draws_random_numbers_is_refused(folders, tiny_dataset, monkeypatch):
    from transformers import ASTFeatureExtractor

    plain, generator = ASTFeatureExtractor._extract_fbank_features, np.random.default_rng(0)
    monkeypatch.setattr(
        ASTFeatureExtractor,
        "_extract_fbank_features",
        lambda self, waveform, max_length: plain(self, waveform + generator.random(len(waveform)), max_length),
    )
    config = FOUNDATION_ENCODERS["audio"](encoder=f"path:{folders('ast')}", duration_s=1.0)
    with pytest.raises(ConfigError, match="gives something else each time"):
        config.fit(tiny_dataset, "audio", everything(tiny_dataset))


@pytest.mark.parametrize("family", ["whisper", "wav2vec2_bert"])
def test_silence_that_fills_up_a_short_sound_does_not_count(family, folders, tiny_dataset):
    """Half a second of sound: beside longer ones or alone, in windows of 1 or 2 s, kept below the top block or not."""
    alone = []
    for duration_s in (1.0, 2.0):
        settings = {"duration_s": duration_s, "tune": "top:1"}
        _, preprocessing, module, _ = make("audio", f"transformers:{family}", folders, tiny_dataset, **settings)
        raws = [tone(0.5), tone(0.9, frequency=300), tone(duration_s, frequency=600), tone(0.25)]
        inputs = preprocessing.collate([preprocessing(raw) for raw in raws])
        together = module.features(inputs)[0][:, 0]
        alone.append(module.features(preprocessing.collate([preprocessing(raws[0])]))[0][0, 0])
        torch.testing.assert_close(alone[-1], together[0], atol=1e-5, rtol=1e-4)
        assert module.keeps == "hidden"
        rows = torch.stack(module.keep(inputs))
        kept = {"hidden": rows, "hidden_mask": torch.ones(rows.shape[:2], dtype=torch.bool)}
        torch.testing.assert_close(module.features(kept)[0][:, 0], together, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(alone[0], alone[1], atol=1e-4, rtol=1e-3)


def test_wav2vec2_bert_hears_its_mask(folders, tiny_dataset):
    from transformers import AutoFeatureExtractor, AutoModel

    _, preprocessing, module, _ = make("audio", "transformers:wav2vec2_bert", folders, tiny_dataset)
    extractor = AutoFeatureExtractor.from_pretrained(folders("wav2vec2_bert"))
    model = AutoModel.from_pretrained(folders("wav2vec2_bert")).eval()
    inputs = extractor(samples_of(0.5), sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        expected = model(**inputs).last_hidden_state.mean(1)
    found = module.features(preprocessing.collate([preprocessing(tone(0.5))]))[0][:, 0]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_numbers_kept_beside_a_hidden_state_are_exact_in_half_precision():
    numbers = torch.tensor([[0, 1023], [160_000, 2**30 - 1], [1024, 7]])
    row = as_row(numbers, torch.zeros(3, 5, 16, dtype=torch.float16))
    assert (row.shape, row.dtype) == ((3, 1, 16), torch.float16)
    assert torch.equal(from_row(row[:, 0].float(), 2), numbers)
