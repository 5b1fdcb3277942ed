"""Networks compiled by torch.compile, where shapes repeat."""

from __future__ import annotations

import torch._dynamo
from torch import nn

from mmrec.modality_encoders.foundation import FoundationEncoder
from mmrec.modality_encoders.image import ImageEncoder
from mmrec.modality_encoders.video import VideoEncoder
from mmrec.model import Recommender
from mmrec.user_encoders.sequential import BlockEncoder

__all__ = ["compile_networks"]


def compile_networks(model: Recommender) -> None:
    """Compile what reads pictures and frames, of foundation encoders the blocks, and the blocks of the user encoder.

    Numbers of items and of events change from step to step: from the second size on they are symbols, so that nothing
    is compiled again and nothing computed on padding. Histories are mixed outside of the compiled parts. So are fusion,
    which picks the tokens that are present, and the small towers of sounds and texts, whose length is a second symbol
    that the compiler does not bear (torch 2.14).
    """
    networks: list[nn.Module] = []
    for encoder in model.item_encoder.encoders.values():
        if isinstance(encoder, FoundationEncoder):
            encoder.compile_network()
        elif isinstance(encoder, ImageEncoder | VideoEncoder):
            networks.append(encoder.tower)
    if isinstance(model.user_encoder, BlockEncoder):
        networks.extend(model.user_encoder.blocks)
    # The limit counts by class: networks of one class, in training and in validation, are that many compilations.
    torch._dynamo.config.recompile_limit = 8 * max(1, len(networks))
    for network in networks:
        network.compile()
