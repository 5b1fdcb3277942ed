"""Encoders as graphs: the same tokens for any items, without the library of the network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from mmrec.errors import CheckpointError
from mmrec.modality_encoders import AudioConfig, ImageConfig, TextConfig, VideoConfig
from mmrec.modality_encoders.base import ModalityEncoder, Tokens
from mmrec.modality_encoders.graph import GraphEncoder, graph_writer

CONFIGS = {"image": ImageConfig(), "text": TextConfig(), "audio": AudioConfig(), "video": VideoConfig()}


@pytest.mark.parametrize("modality", CONFIGS)
def test_a_graph_gives_the_tokens_of_its_encoder_for_any_items(modality, tiny_dataset, tmp_path):
    preprocessing = CONFIGS[modality].fit(tiny_dataset, modality, np.ones(24, dtype=bool))
    samples = [preprocessing(tiny_dataset.read(modality, n)) for n in np.flatnonzero(tiny_dataset.present(modality))]
    if modality == "text":
        samples.append(np.tile(samples[0], 40)[:64])
    encoder = CONFIGS[modality].build(8, preprocessing).eval()
    writer = graph_writer(encoder, preprocessing.collate(samples[:1]), preprocessing.collate(samples[1:2]))
    assert writer is not None
    writer(tmp_path / "graph.pt")
    graph = GraphEncoder(tmp_path / "graph.pt")
    for some in (samples[:2], samples[-1:], samples):
        inputs = preprocessing.collate(some)
        with torch.inference_mode():
            for found, expected in zip(graph(inputs), encoder(inputs), strict=True):
                torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_an_encoder_that_decides_by_what_it_sees_has_no_graph():
    class Fickle(ModalityEncoder):
        def forward(self, inputs: dict[str, Tensor]) -> Tokens:
            values = inputs["values"]
            tokens = values if values.sum() > 0 else -values
            return tokens, torch.ones(tokens.shape[:2], dtype=torch.bool)

    positive, negative = {"values": torch.ones(1, 1, 4)}, {"values": -torch.ones(1, 1, 4)}
    assert graph_writer(Fickle(), positive, negative) is None
    assert graph_writer(Fickle(), positive, positive) is not None


def test_a_damaged_graph_is_named(tmp_path):
    (tmp_path / "graph.pt").write_bytes(b"PK no graph")
    with pytest.raises(CheckpointError, match=r"graph\.pt is damaged"):
        GraphEncoder(tmp_path / "graph.pt")
