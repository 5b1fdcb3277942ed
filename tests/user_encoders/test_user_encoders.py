"""What every user encoder must hold: packing, causality, order."""

from __future__ import annotations

import pytest
import torch

from mmrec.batch import SequenceBatch
from mmrec.errors import ConfigError
from mmrec.user_encoders import USER_ENCODERS, MeanPoolConfig, SASRecConfig

DIM = 8


def sequences(*lengths: int) -> SequenceBatch:
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    return SequenceBatch(item_idx=torch.arange(int(offsets[-1])), offsets=offsets)


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
