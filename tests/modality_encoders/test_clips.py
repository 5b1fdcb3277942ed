"""Clips: networks of torchvision by name and from a folder, and networks of pictures frame by frame."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmrec.errors import ConfigError
from mmrec.modality_encoders.foundation import torchvision_home
from mmrec.modality_encoders.foundation.name import EncoderName
from mmrec.modality_encoders.foundation.pixels import pixels_from_json
from tests.modality_encoders.tiny_networks import make

NETWORKS = ["mvit_v1_b", "mvit_v2_s", "s3d", "swin3d_t", "swin3d_s", "swin3d_b", "r3d_18", "mc3_18", "r2plus1d_18"]


@pytest.mark.parametrize("network", NETWORKS)
def test_clips_are_prepared_as_the_weights_of_torchvision_want_it(network):
    from torchvision.models import get_model_weights

    architecture, _ = torchvision_home.describe(EncoderName.parse(f"torchvision:{network}@random", "video"))
    transform = pixels_from_json(architecture["transform"])
    reference = get_model_weights(network).DEFAULT.transforms()
    for height, width in ((240, 320), (300, 171)):
        noise = np.random.default_rng(0).integers(0, 256, (2, height // 10, width // 10, 3), dtype=np.uint8)
        frames = noise.repeat(10, 1).repeat(10, 2)
        expected = reference(torch.from_numpy(frames).permute(0, 3, 1, 2)).transpose(0, 1)
        found = transform.normalise(torch.from_numpy(transform(frames)))
        assert found.shape == expected.shape
        assert (found - expected).abs().max() < 2.5 / 255 / min(transform.std), "two steps of 8 bits"


def test_weights_of_torchvision_are_read_from_a_folder(tmp_path):
    from torchvision.models import get_model

    torch.manual_seed(0)
    written = get_model("s3d", weights=None)
    torch.save(written.state_dict(), tmp_path / "s3d-d76dad2f.pth")
    name = EncoderName.parse(f"torchvision:{tmp_path}", "video")
    architecture, frames = torchvision_home.describe(name)
    assert (architecture["name"], frames) == ("s3d", 16)
    loaded = torchvision_home.load(name, architecture).state_dict()
    assert loaded
    for key, value in loaded.items():
        torch.testing.assert_close(value, written.state_dict()[key.removeprefix("network.")], atol=0, rtol=0)
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "s3d-d76dad2f.pth")
    with pytest.raises(ConfigError, match=r"torchvision cannot load the weights .* of another architecture"):
        torchvision_home.load(name, architecture)
    (tmp_path / "s3d-d76dad2f.pth").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="torchvision cannot load the weights"):
        torchvision_home.load(name, architecture)


def test_folders_without_the_weights_of_a_network_of_torchvision(tmp_path):
    name = EncoderName.parse(f"torchvision:{tmp_path}", "video")
    with pytest.raises(ConfigError, match=r"holds 0 files \*\.pth; put the one there that torchvision downloads"):
        torchvision_home.describe(name)
    (tmp_path / "s4d-00.pth").touch()
    with pytest.raises(ConfigError, match="unknown video network of torchvision 's4d'; perhaps you meant 's3d'"):
        torchvision_home.describe(name)
    (tmp_path / "s3d-00.pth").touch()
    with pytest.raises(ConfigError, match=r"holds 2 files \*\.pth"):
        torchvision_home.describe(name)


@pytest.fixture(scope="module")
def frame_by_frame(folders, tiny_dataset):
    """A network of pictures with temporal attention that is no longer at its start, where it does nothing."""
    _, preprocessing, module, inputs = make("video", "timm:timm_vit", folders, tiny_dataset, num_frames=4)
    torch.nn.init.normal_(module.temporal.attention.out_proj.weight, generator=torch.Generator().manual_seed(2))
    torch.nn.init.normal_(module.temporal.time, generator=torch.Generator().manual_seed(3))
    return preprocessing, module.eval(), inputs


@torch.no_grad()
def test_the_order_of_frames_is_seen(frame_by_frame):
    _, module, inputs = frame_by_frame
    tokens, mask = module(inputs)
    assert mask.all()
    turned = {key: value.flip(1) for key, value in inputs.items()}
    backwards = module(turned)[0]
    assert (tokens.mean(1) - backwards.mean(1)).abs().max() > 1e-3, "a door that opens is not one that closes"
    without = module.features(inputs)[0], module.features(turned)[0]
    torch.testing.assert_close(without[0].mean(1), without[1].mean(1), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_frames_that_a_short_clip_has_not_are_not_seen(frame_by_frame):
    preprocessing, module, inputs = frame_by_frame
    clips = [inputs["values"][0].numpy(), inputs["values"][1, :2].numpy(), inputs["values"][2, :1].numpy()]
    batch = preprocessing.collate(clips)
    assert batch["mask"].sum(1).tolist() == [4, 2, 1]
    tokens, mask = module(batch)
    assert torch.equal(mask, batch["mask"])
    disturbed = {**batch, "values": torch.where(mask[..., None, None, None], batch["values"], 99)}
    torch.testing.assert_close(module(disturbed)[0][mask], tokens[mask], atol=0, rtol=0)
    for number, clip in enumerate(clips):
        alone, real = module(preprocessing.collate([clip]))
        torch.testing.assert_close(alone[real], tokens[number][mask[number]], atol=1e-5, rtol=1e-5)


def test_temporal_attention_starts_as_nothing_and_learns(folders, tiny_dataset):
    _, _, module, inputs = make("video", "timm:timm_vit", folders, tiny_dataset, num_frames=4)
    features, mask = module.features(inputs)
    torch.testing.assert_close(module.temporal(features, mask), features, atol=0, rtol=0)
    module(inputs)[0].square().sum().backward()
    assert module.temporal.attention.out_proj.weight.grad.abs().sum() > 0
