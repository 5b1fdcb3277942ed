"""From files to item vectors, stage by stage: what each costs beside the bare operation under it.

    python -m eval.benchmarks.item_encoding --data data/movielens_mm

Pictures of a dataset through a foundation encoder (`--encoder`; random weights will do, the arithmetic is the same):

- read: bytes by offset from the shards, hash checked
- decode: to RGB, beside ``torchvision.io.decode_image``
- decode + resize: the encoder's whole preprocessing, beside ``decode_image`` and torchvision's resize to the same size
- forward: the bare network on tensors that lie in memory, in the batches of `encode_catalog`
- encode: `encode_catalog` of the same items, samples decoded before: batches, masks, normalisation, network, fusion

Each ratio is of times in one process, the two taken in turn, best of three rounds.

Measured 2026-11-26, 2-core CPU, `--items 96`, posters of 192 x 128, vit_tiny at 224 px: read 144,000 items/s; decode
4,640, 1.26 times the time of the bare operation; decode + resize 2,530, 1.19 times; encode 52, .94 times that of the
bare network (the two are equal but for noise).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from mmrec.data.dataset import Dataset
from mmrec.inference import encode_catalog
from mmrec.item_encoder import ItemEncoderConfig
from mmrec.item_inputs import CatalogInputs
from mmrec.media.image import decode_image
from mmrec.modality_encoders import FoundationImageConfig
from mmrec.model import ModelConfig

CHUNK = 64
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="dataset folder with pictures")
    parser.add_argument("--encoder", default="timm:vit_tiny_patch16_224@random", help="foundation encoder of pictures")
    parser.add_argument("--items", type=int, default=256, help="pictures")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dataset = Dataset.open(arguments.data)
    items = np.flatnonzero(dataset.present("image"))[: arguments.items]
    config = FoundationImageConfig(encoder=arguments.encoder)
    preprocessing: Any = config.fit(dataset, "image", dataset.present("image"))
    torch.manual_seed(0)
    item_encoder = ItemEncoderConfig(encoders={"image": config}, dim=128)
    model = ModelConfig(item_encoder=item_encoder).build({"image": preprocessing})
    catalog = CatalogInputs(dataset, model.inputs, num_threads=arguments.threads)
    raws: list[Any] = [dataset.read("image", int(item)) for item in items]
    samples = [preprocessing(raw) for raw in raws]
    catalog.warm()
    pixels = [preprocessing.collate(samples[start : start + CHUNK]) for start in range(0, len(samples), CHUNK)]
    tower: Any = model.eval().item_encoder.encoders["image"].tower
    transform = preprocessing.transform

    @torch.inference_mode()
    def forward() -> None:
        for batch in pixels:
            tower(batch)

    from torchvision.io import ImageReadMode
    from torchvision.io import decode_image as torchvision_decode
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2.functional import resize

    def bare(raw: bytes) -> torch.Tensor:
        return torchvision_decode(torch.frombuffer(bytearray(raw), dtype=torch.uint8), mode=ImageReadMode.RGB)

    size = [transform.height, transform.width] if transform.resize_px is None else [transform.resize_px]
    mode = InterpolationMode(transform.interpolation)
    stages: list[tuple[str, Callable[[], object], Callable[[], object] | None]] = [
        ("read", lambda: [dataset.read("image", int(item)) for item in items], None),
        ("decode", lambda: [decode_image(raw) for raw in raws], lambda: [bare(raw) for raw in raws]),
        (
            "decode + resize",
            lambda: [preprocessing(raw) for raw in raws],
            lambda: [resize(bare(raw), size, mode, antialias=True) for raw in raws],
        ),
        ("encode", lambda: encode_catalog(model, catalog, items, chunk=CHUNK), forward),
    ]
    table = Table(
        title=f"{len(items)} pictures, {arguments.encoder}, {arguments.threads} threads", title_justify="left"
    )
    for heading in ("stage", "items/s", "bare operation, items/s", "time / bare time"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for name, ours, reference in stages:
        mine, theirs = _best(ours, reference)
        cells = ["", ""] if theirs is None else [f"{len(items) / theirs:,.0f}", f"{mine / theirs:.2f}"]
        table.add_row(name, f"{len(items) / mine:,.0f}", *cells)
    Console().print(table)


def _best(ours: Callable[[], object], reference: Callable[[], object] | None) -> tuple[float, float | None]:
    """Least seconds of each, taken in turn."""
    best = [float("inf"), float("inf")]
    for _ in range(ROUNDS):
        for place, run in enumerate((ours, reference)):
            if run is not None:
                started = time.perf_counter()
                run()
                best[place] = min(best[place], time.perf_counter() - started)
    return best[0], best[1] if reference is not None else None


if __name__ == "__main__":
    main()
