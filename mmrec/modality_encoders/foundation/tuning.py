"""How much of a foundation encoder learns: nothing, its top blocks, low-rank adapters, or everything."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from mmrec.errors import ConfigError
from mmrec.modality_encoders.foundation.blocks import find_blocks

__all__ = ["Tuning", "add_adapters", "learning_parameters"]


@dataclass(frozen=True)
class Tuning:
    """What learns.

    Attributes:
        kind: frozen, top, lora or all.
        number: top blocks that learn, or rank of the adapters.
    """

    kind: str
    number: int = 0

    @classmethod
    def parse(cls, text: str) -> Tuning:
        """Raises: ConfigError if the text is none of ``frozen``, ``top:K``, ``lora:RANK``, ``all``."""
        if text in ("frozen", "all"):
            return cls(text)
        found = re.fullmatch(r"(top|lora):([1-9]\d*)", text)
        if found is None:
            raise ConfigError(f"tune is {text!r}; give frozen, top:K (blocks), lora:RANK or all")
        return cls(found[1], int(found[2]))

    def first_block(self, num_blocks: int) -> int:
        """Index of the lowest block that learns; ``num_blocks`` if none does.

        Raises: ConfigError if the network has fewer blocks than should learn.
        """
        if self.kind == "top" and self.number > num_blocks:
            raise ConfigError(f"tune is top:{self.number}, but the network has {num_blocks} blocks; give fewer, or all")
        return {"frozen": num_blocks, "top": num_blocks - self.number}.get(self.kind, 0)


def add_adapters(network: nn.Module, rank: int) -> None:
    """Put a low-rank adapter beside each linear map of the blocks; the network still computes what it did.

    Maps inside ``nn.MultiheadAttention`` are left alone: the module reads their weights and would never call them.

    Source: LoRA, Hu et al. 2022; by peft.
    """
    from peft import LoraConfig, inject_adapter_in_model

    inside = {id(block) for block in find_blocks(network)}
    opaque: set[int] = set()
    for module in network.modules():
        if isinstance(module, nn.MultiheadAttention):
            opaque |= {id(part) for part in module.modules()}
    targets = []
    for prefix, block in network.named_modules():
        if id(block) in inside:
            names = ((f"{prefix}.{name}" if name else prefix, part) for name, part in block.named_modules())
            targets += [name for name, part in names if isinstance(part, nn.Linear) and id(part) not in opaque]
    if not targets:
        raise ConfigError("tune is lora, but the blocks of this network hold no linear maps; give top:K or all")
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets), network)


def learning_parameters(
    network: nn.Module, tuning: Tuning, layer_decay: float, behind: Sequence[str]
) -> dict[str, float]:
    """By their names in the network, the parameters that learn, and the share of the towers' rate at which each does.

    Names, because sharding puts other parameters in the place of those that are here now.

    The highest block, and what stands behind it, learn at the full rate, each block below at ``layer_decay`` times the
    rate of the one above, and all else, such as embeddings, slowest.

    Args:
        behind: names of the modules that come after the blocks.

    Source: discriminative rates, Howard and Ruder 2018; as in BEiT (Bao et al. 2022).
    """
    blocks = find_blocks(network)
    level = {parameter: index for index, block in enumerate(blocks) for parameter in block.parameters()}
    for name in behind:
        level |= dict.fromkeys(network.get_submodule(name).parameters(), len(blocks) - 1)
    first = tuning.first_block(len(blocks))
    chosen: dict[str, float] = {}
    for name, parameter in network.named_parameters():
        place = level.get(parameter, -1)
        learns = {"frozen": False, "top": place >= first, "lora": "lora_" in name, "all": True}[tuning.kind]
        if learns:
            chosen[name] = layer_decay ** (len(blocks) - 1 - place)
    return chosen
