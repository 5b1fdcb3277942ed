"""Networks compiled by torch.compile, where shapes repeat."""

from __future__ import annotations

from torch import nn

from mmrec.modality_encoders.foundation import FoundationEncoder
from mmrec.modality_encoders.tower import TowerEncoder
from mmrec.model import Recommender
from mmrec.user_encoders.sequential import BlockEncoder

__all__ = ["compile_networks"]


def compile_networks(model: Recommender) -> None:
    """Compile the towers of raw media (of foundation encoders the blocks) and the blocks of the user encoder, in place.

    Numbers of items and of events change from step to step and are compiled as symbols, so that nothing is compiled
    again and nothing computed on padding; sizes of pictures, clips and vectors are fixed. Histories are mixed outside
    of the compiled parts, and so is fusion, which picks the tokens that are present.
    """
    networks: list[nn.Module] = []
    for encoder in model.item_encoder.encoders.values():
        if isinstance(encoder, FoundationEncoder):
            encoder.compile_network()
        elif isinstance(encoder, TowerEncoder):
            networks.append(encoder)
    if isinstance(model.user_encoder, BlockEncoder):
        networks.extend(model.user_encoder.blocks)
    for network in networks:
        network.compile(dynamic=True)
