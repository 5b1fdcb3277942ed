"""Each network against its paper written out over padded histories, event by event, in float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmrec.batch import SequenceBatch
from mmrec.user_encoders import BERT4RecConfig, GRU4RecConfig, HSTUConfig, LiGRConfig, MeanPoolConfig, SASRecConfig

DIM, LENGTHS = 8, (4, 0, 7, 1, 5)
LONGEST = max(LENGTHS)


def build(config):
    torch.manual_seed(0)
    model = config.build(DIM).double()
    for parameter in model.parameters():  # zero-initialised outputs would hide what the blocks do
        torch.nn.init.normal_(parameter, std=0.4)
    return model.eval()


@pytest.fixture
def batch() -> tuple[Tensor, SequenceBatch]:
    generator = torch.Generator().manual_seed(1)
    offsets = torch.tensor([0, *LENGTHS]).cumsum(0)
    items = torch.randn(int(offsets[-1]), DIM, dtype=torch.float64, generator=generator)
    times = torch.cat([torch.randint(2**20, (n,), generator=generator).sort().values for n in LENGTHS])
    return items, SequenceBatch(item_idx=torch.arange(len(items)), offsets=offsets, timestamps=times)


def padded(values: Tensor) -> Tensor:
    """(users, longest, ...), zeros behind each history's end."""
    return torch.stack([F.pad(part, (0, 0, 0, LONGEST - len(part))) for part in values.split(LENGTHS)])


def packed(values: Tensor) -> Tensor:
    return torch.cat([row[:length] for row, length in zip(values, LENGTHS, strict=True)])


def softmax_attention(attention, hidden: Tensor, causal: bool = True) -> Tensor:
    """One query, one head at a time over (users, L, D); what is padded is not looked at."""
    query, key, value = attention.query_key_value(hidden).split(DIM, dim=-1)
    bias, width = attention.distance_bias.weight, DIM // attention.num_heads
    found = torch.zeros_like(hidden)
    for user, length in enumerate(LENGTHS):
        for i in range(length):
            for head in range(attention.num_heads):
                part = slice(head * width, (head + 1) * width)
                seen = range(i + 1) if causal else range(length)
                scores = torch.stack(
                    [
                        query[user, i, part] @ key[user, j, part] / math.sqrt(width)
                        + bias[i - j - attention.nearest, head]
                        for j in seen
                    ]
                )
                found[user, i, part] = scores.softmax(0) @ value[user, list(seen), part]
    return attention.out(found)


def sasrec_block(block, hidden: Tensor, causal: bool = True) -> Tensor:
    """Pre-norm (Xiong et al. 2020, figure 1b)."""
    hidden = hidden + softmax_attention(block.attention, block.attention_norm(hidden), causal)
    return hidden + block.last(F.gelu(block.first(block.feed_forward_norm(hidden))))


def ligr_block(block, hidden: Tensor) -> Tensor:
    """``x + sigmoid(W x) * F(norm(x))`` for attention and SwiGLU (Borisyuk et al. 2025)."""
    attended = softmax_attention(block.attention, block.attention_norm(hidden))
    hidden = hidden + torch.sigmoid(block.attention_gate(hidden)) * attended
    left, right = block.gate_and_value(block.feed_forward_norm(hidden)).split(2 * DIM, dim=-1)
    return hidden + torch.sigmoid(block.feed_forward_gate(hidden)) * block.last(F.silu(left) * right)


def gru_layer(layer: torch.nn.GRU, hidden: Tensor) -> Tensor:
    """Cho et al. 2014, with PyTorch's names of gates: reset, update, new."""
    found = torch.zeros_like(hidden)
    for user, length in enumerate(LENGTHS):
        state = torch.zeros(DIM, dtype=torch.float64)
        for n in range(length):
            of_input = layer.weight_ih_l0 @ hidden[user, n] + layer.bias_ih_l0
            of_state = layer.weight_hh_l0 @ state + layer.bias_hh_l0
            reset, update = (torch.sigmoid(of_input[s] + of_state[s]) for s in (slice(0, DIM), slice(DIM, 2 * DIM)))
            new = torch.tanh(of_input[2 * DIM :] + reset * of_state[2 * DIM :])
            state = (1 - update) * new + update * state
            found[user, n] = state
    return found


def hstu_block(block, hidden: Tensor, times: Tensor) -> Tensor:
    """Zhai et al. 2024, eqs. 1 to 3."""
    gate, query, key, value = F.silu(block.inputs(block.norm(hidden))).split(DIM, dim=-1)
    width = DIM // block.num_heads
    attended = torch.zeros_like(hidden)
    for user, length in enumerate(LENGTHS):
        for i in range(length):
            for head in range(block.num_heads):
                part = slice(head * width, (head + 1) * width)
                for j in range(i + 1):
                    bucket = math.floor(math.log2(1 + float(times[user, i] - times[user, j])))
                    score = query[user, i, part] @ key[user, j, part] / math.sqrt(width)
                    score = score + block.distance_bias.weight[i - j, head] + block.time_bias.weight[bucket, head]
                    attended[user, i, part] += F.silu(score) / (i + 1) * value[user, j, part]
    return hidden + block.out(block.attended_norm(attended) * gate)


def recency_mean(mean, items: Tensor) -> Tensor:
    decay = float(F.softplus(mean.raw_decay))
    found = torch.zeros_like(items)
    for i in range(items.shape[1]):
        weights = torch.tensor([math.exp(-decay * (i - j)) for j in range(i + 1)], dtype=torch.float64)
        found[:, i] = torch.einsum("j,ujd->ud", weights / weights.sum(), items[:, : i + 1])
    return found


def whole(encoder, items: Tensor, hidden: Tensor) -> Tensor:
    """What surrounds the network: the sentence of SequentialEncoder's docstring."""
    if not encoder.shortcut:
        return encoder.norm(hidden)
    follow = encoder.transition(recency_mean(encoder.recent_before_transition, items))
    return recency_mean(encoder.recent, items) + follow + encoder.out(encoder.norm(hidden)) / math.sqrt(DIM)


@pytest.mark.parametrize("shortcut", [True, False], ids=["with the mean", "as published"])
@pytest.mark.parametrize(
    ("config", "block"), [(SASRecConfig, sasrec_block), (LiGRConfig, ligr_block)], ids=["sasrec", "ligr"]
)
def test_blocks_of_softmax_attention_equal_their_papers(batch, config, block, shortcut):
    items, sequences = batch
    encoder = build(config(num_blocks=2, num_heads=2, shortcut=shortcut))
    hidden = math.sqrt(DIM) * padded(items)
    for module in encoder.blocks:
        hidden = block(module, hidden)
    torch.testing.assert_close(encoder(items, sequences), packed(whole(encoder, padded(items), hidden)))


def test_gru4rec_equals_its_recurrence(batch):
    items, sequences = batch
    encoder = build(GRU4RecConfig(num_blocks=2))
    hidden = math.sqrt(DIM) * padded(items)
    for layer in encoder.layers:
        hidden = gru_layer(layer, hidden)
    torch.testing.assert_close(encoder(items, sequences), packed(whole(encoder, padded(items), hidden)))


def test_hstu_equals_its_formula(batch):
    items, sequences = batch
    encoder = build(HSTUConfig(num_blocks=2))
    times = padded(sequences.timestamps[:, None])[..., 0]
    hidden = math.sqrt(DIM) * padded(items)
    for module in encoder.blocks:
        hidden = hstu_block(module, hidden, times)
    torch.testing.assert_close(encoder(items, sequences), packed(whole(encoder, padded(items), hidden)))


def test_bert4rec_fills_masked_events_from_both_sides(batch):
    items, sequences = batch
    encoder = build(BERT4RecConfig(num_blocks=2, shortcut=False))
    masked = torch.rand(len(items), generator=torch.Generator().manual_seed(2)) < 0.4
    assert masked.any()
    sequences = SequenceBatch(item_idx=sequences.item_idx, offsets=sequences.offsets, masked=masked)
    hidden = math.sqrt(DIM) * padded(torch.where(masked[:, None], encoder.mask, items))
    for module in encoder.blocks:
        hidden = sasrec_block(module, hidden, causal=False)
    torch.testing.assert_close(encoder(items, sequences), packed(encoder.norm(hidden)))


def test_mean_pooling_is_a_running_mean_and_a_residual(batch):
    items, sequences = batch
    encoder = build(MeanPoolConfig())
    count = torch.arange(1, LONGEST + 1, dtype=torch.float64)[None, :, None]
    mean = padded(items).cumsum(1) / count
    expected = mean + encoder.last(F.gelu(encoder.first(encoder.norm(mean))))
    torch.testing.assert_close(encoder(items, sequences), packed(expected))
