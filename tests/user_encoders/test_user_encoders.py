"""What every user encoder must hold: packing, causality, order."""

from __future__ import annotations

import math

import pytest
import torch

from mmrec.batch import SequenceBatch
from mmrec.errors import ConfigError
from mmrec.user_encoders import (
    USER_ENCODERS,
    GRU4RecConfig,
    HSTUConfig,
    LiGRConfig,
    MeanPoolConfig,
    SASRecConfig,
)

DIM = 8


def sequences(*lengths: int, timestamps: torch.Tensor | None = None) -> SequenceBatch:
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    return SequenceBatch(item_idx=torch.arange(int(offsets[-1])), offsets=offsets, timestamps=timestamps)


@pytest.fixture(params=sorted(USER_ENCODERS))
def encoder(request):
    torch.manual_seed(0)
    model = USER_ENCODERS[request.param]().build(DIM)
    for parameter in model.parameters():  # zero-initialised outputs would hide what the blocks do
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def test_users_packed_together_equal_users_alone(encoder):
    items = torch.randn(9, DIM, generator=torch.Generator().manual_seed(1))
    together = encoder(items, sequences(4, 0, 2, 3))
    alone = torch.cat([encoder(part, sequences(len(part))) for part in items.split([4, 2, 3])])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_later_events_do_not_change_earlier_vectors(encoder):
    items = torch.randn(6, DIM, generator=torch.Generator().manual_seed(2))
    changed = items.clone()
    changed[4:] *= -2.0
    before, after = encoder(items, sequences(6)), encoder(changed, sequences(6))
    torch.testing.assert_close(before[:4], after[:4], atol=1e-6, rtol=0)
    assert not torch.allclose(before[4:], after[4:], atol=1e-3)


def test_every_parameter_receives_a_gradient(encoder):
    items = torch.randn(5, DIM, generator=torch.Generator().manual_seed(3))
    encoder(items, sequences(5)).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name


def test_an_empty_batch_still_reaches_every_parameter(encoder):
    """A rank that has no history in the last step of an epoch must take part in the gradient exchange."""
    encoder(torch.zeros(0, DIM), sequences()).sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_mean_pooling_ignores_the_order_of_a_history():
    torch.manual_seed(0)
    encoder = MeanPoolConfig().build(DIM).eval()
    items = torch.randn(5, DIM)
    shuffled = items[torch.tensor([3, 0, 4, 1, 2])]
    torch.testing.assert_close(encoder(items, sequences(5))[-1], encoder(shuffled, sequences(5))[-1])


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match="num_heads is 3; it must divide the model width 8"):
        SASRecConfig(num_heads=3).build(DIM)


def test_an_untrained_sasrec_is_the_mean_in_which_later_events_weigh_more():
    torch.manual_seed(0)
    encoder = SASRecConfig().build(DIM).eval()
    items = torch.nn.functional.normalize(torch.randn(3, DIM), dim=-1)
    found = encoder(items, sequences(3))[-1]
    weights = torch.exp(-0.5 * torch.tensor([2.0, 1.0, 0.0]))
    torch.testing.assert_close(found, (weights / weights.sum()) @ items, atol=1e-6, rtol=0)


def test_hstu_equals_its_formula_written_out_in_float64():
    torch.manual_seed(0)
    encoder = HSTUConfig(num_heads=2).build(DIM).double().eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    block = encoder.blocks[0]
    hidden = torch.randn(5, DIM, dtype=torch.float64)
    times = torch.tensor([0, 1, 5, 5, 2**40])
    found = block(hidden, sequences(5, timestamps=times))

    gate, query, key, value = torch.nn.functional.silu(block.inputs(block.norm(hidden))).chunk(4, dim=1)
    for i in range(5):
        attended = torch.zeros(DIM, dtype=torch.float64)
        for head, part in enumerate((slice(0, 4), slice(4, 8))):
            for j in range(i + 1):
                bucket = min(31, math.floor(math.log2(1 + float(times[i] - times[j]))))
                score = query[i, part] @ key[j, part] / 2  # sqrt of 4, the width of a head
                score = score + block.distance_bias.weight[i - j, head] + block.time_bias.weight[bucket, head]
                attended[part] += torch.nn.functional.silu(score) / (i + 1) * value[j, part]
        expected = hidden[i] + block.out(block.attended_norm(attended) * gate[i])
        torch.testing.assert_close(found[i], expected)


def test_hstu_with_times_packs_users_without_mixing_them():
    torch.manual_seed(0)
    encoder = HSTUConfig().build(DIM).eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    items, times = torch.randn(7, DIM), torch.tensor([1, 50, 4000, 7, 7, 90, 100_000])
    together = encoder(items, sequences(4, 3, timestamps=times))
    parts = zip(items.split([4, 3]), times.split([4, 3]), strict=True)
    alone = torch.cat([encoder(part, sequences(len(part), timestamps=when)) for part, when in parts])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    elsewhen = encoder(items, sequences(4, 3, timestamps=times * 3))
    assert (together - elsewhen).abs().max() > 1e-3, "times matter"


@pytest.mark.parametrize("config", [SASRecConfig, LiGRConfig, HSTUConfig, GRU4RecConfig])
@pytest.mark.parametrize("num_blocks", [1, 8])
def test_shallow_and_deep_networks_learn_what_depends_on_two_events(config, num_blocks):
    """The next item is the sum of the last two, modulo 5: no function of one event, and of no mean of events."""
    if config is GRU4RecConfig and num_blocks == 8:
        pytest.skip("recurrent layers have no residual path; one is what the paper uses")
    torch.manual_seed(0)
    encoder = config(num_blocks=num_blocks, dropout=0.0).build(32)
    table = torch.nn.functional.normalize(torch.randn(5, 32), dim=1)
    generator = torch.Generator().manual_seed(1)
    events = list(torch.randint(5, (2, 64), generator=generator))
    while len(events) < 9:
        events.append((events[-1] + events[-2]) % 5)
    history = torch.stack(events, 1)  # (64, 9)
    inputs, targets = history[:, :-1].flatten(), history[:, 1:].flatten()
    batch = sequences(*[8] * 64)
    predictable = torch.arange(len(inputs)) % 8 >= 1
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=3e-3)
    for _ in range(120):
        logits = 10 * torch.nn.functional.normalize(encoder(table[inputs], batch), dim=1) @ table.T
        loss = torch.nn.functional.cross_entropy(logits[predictable], targets[predictable])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    right = (logits.argmax(1) == targets)[predictable].double().mean()
    assert right > 0.95
