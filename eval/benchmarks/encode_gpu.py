"""Encoding on a GPU: items a second and MFU of each tower in bf16 by batch size, and whether decoding bounds it.

    python -m eval.benchmarks.encode_gpu                      (on a machine with CUDA; nothing is downloaded)
    python -m eval.benchmarks.encode_gpu --towers vit_b --batches 8 --device cpu       (to try the script)

Random weights, inputs of the networks' own shapes as uint8 on the host (pictures, clips) or tokens and spectrograms.
Per tower and batch size: items/s of the forward pass with the copy to the device, model FLOPs of an item (counted by
torch), MFU = FLOPs/s over the dense bf16 peak of the device where that is known. ``decode`` is what one CPU core
decodes of JPEGs of 500 x 375 with the tower's own preprocessing, and how many cores the tower would keep busy.
"""

from __future__ import annotations

import argparse
import io
import time
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from mmrec.modality_encoders.foundation import FOUNDATION_ENCODERS
from mmrec.modality_encoders.foundation.homes import build_network

TOWERS = {
    "vit_b": ("image", "timm:vit_base_patch16_224@random"),
    "siglip_b": ("image", "open_clip:ViT-B-16-SigLIP@random"),
    "dinov3_l": ("image", "timm:vit_large_patch16_dinov3@random"),
    "ast": ("audio", "transformers:audio-spectrogram-transformer@random"),
    "videomae_b": ("video", "transformers:videomae@random"),
    "clip_b_frames": ("video", "timm:vit_base_patch16_224@random"),
}
PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "A100": 312.0, "L4": 121.0, "L40S": 362.0, "4090": 165.0, "B200": 2250.0}
"""Dense bf16 peak by a part of the device's name, TFLOP/s, as the vendor gives it."""
ROUNDS = 5


class Everything:
    """A dataset in which every item has every modality: all that an encoder asks before it is built."""

    def present(self, name: str) -> np.ndarray:
        return np.ones(1, dtype=bool)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--towers", nargs="+", choices=TOWERS, default=list(TOWERS))
    parser.add_argument("--batches", nargs="+", type=int, default=[32, 128, 512])
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    peak = next((value for part, value in PEAK_TFLOPS.items() if part in name), None)
    table = Table(title=f"{name}, torch {torch.__version__}, bf16", title_justify="left")
    for heading in ("tower", "batch", "items/s", "GFLOP/item", "TFLOP/s", "MFU", "peak GiB", "decode/s/core", "cores"):
        table.add_column(heading, justify="left" if heading == "tower" else "right")
    for tower in arguments.towers:
        modality, encoder = TOWERS[tower]
        config: Any = FOUNDATION_ENCODERS[modality](encoder=encoder)
        preprocessing = config.fit(Everything(), modality, np.ones(1, dtype=bool))
        network = build_network(preprocessing.architecture).to(device, torch.bfloat16)
        decoded = _decode_rate(preprocessing) if modality == "image" else None
        for batch in arguments.batches:
            if modality == "video" and batch > 64:
                batch //= 8
            rate, flops, memory = _measure(network, preprocessing, batch, device)
            mfu = "" if peak is None else f"{rate * flops / 1e12 / peak:.1%}"
            cells = [f"{rate:,.1f}", f"{flops / 1e9:,.1f}", f"{rate * flops / 1e12:,.1f}", mfu, memory]
            cells += ["", ""] if decoded is None else [f"{decoded:,.0f}", f"{rate / decoded:.1f}"]
            table.add_row(tower, str(batch), *cells)
        del network
    Console(width=140).print(table)


@torch.inference_mode()
def _measure(network: Any, preprocessing: Any, batch: int, device: torch.device) -> tuple[float, float, str]:
    """Items a second, FLOPs of an item, peak memory."""
    host = {key: value.contiguous() for key, value in preprocessing.blank(batch).items()}
    if device.type == "cuda":
        host = {key: value.pin_memory() for key, value in host.items()}
        torch.cuda.reset_peak_memory_stats()

    def run() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            network({key: value.to(device, non_blocking=True) for key, value in host.items()})
        if device.type == "cuda":
            torch.cuda.synchronize()

    with FlopCounterMode(display=False) as counter:
        run()
    started = time.perf_counter()
    for _ in range(ROUNDS):
        run()
    seconds = (time.perf_counter() - started) / ROUNDS
    memory = f"{torch.cuda.max_memory_allocated() / 2**30:.1f}" if device.type == "cuda" else ""
    return batch / seconds, counter.get_total_flops() / batch, memory


def _decode_rate(preprocessing: Any) -> float:
    """Pictures a second of one core."""
    import torchvision.io  # noqa: F401 (its decoder is used once it is there)
    from PIL import Image

    generator: Any = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    coarse.resize((500, 375), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    started = time.perf_counter()
    for _ in range(200):
        preprocessing(buffer.getvalue())
    seconds = time.perf_counter() - started
    torch.set_num_threads(threads)
    return 200 / seconds


if __name__ == "__main__":
    main()
