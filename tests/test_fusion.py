"""Fusion against its definition: what is absent has no influence, what is present has its share."""

from __future__ import annotations

import pytest
import torch

from mmrec.errors import ConfigError
from mmrec.fusion import AttentionFusionConfig, SumFusionConfig

DIM = 8
MODALITY = torch.tensor([0, 1, 2, 2, 2])  # one picture, one text, three frames


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randn(4, 5, DIM, generator=torch.Generator().manual_seed(0))


MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 1, 1, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)


@pytest.fixture(params=[SumFusionConfig(), AttentionFusionConfig()], ids=["sum", "attention"])
def fusion(request):
    torch.manual_seed(0)
    module = request.param.build(DIM, 3).eval()
    for parameter in module.parameters():  # a zero-initialised output would hide the attention
        torch.nn.init.normal_(parameter, std=0.3)
    return module


def test_whatever_stands_in_masked_places_does_not_matter(fusion, tokens):
    expected = fusion(tokens, MASK, MODALITY)
    for rubbish in (7.0, torch.inf, torch.nan):
        found = fusion(tokens.masked_fill(~MASK[..., None], rubbish), MASK, MODALITY)
        torch.testing.assert_close(found, expected, atol=0, rtol=0)
    assert expected.isfinite().all()


def test_an_item_does_not_depend_on_the_items_beside_it(fusion, tokens):
    together = fusion(tokens, MASK, MODALITY)
    for row in range(4):
        alone = fusion(tokens[row : row + 1], MASK[row : row + 1], MODALITY)
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=0)


def test_the_order_of_tokens_does_not_matter(fusion, tokens):
    order = torch.tensor([3, 0, 4, 2, 1])
    found = fusion(tokens[:, order], MASK[:, order], MODALITY[order])
    torch.testing.assert_close(found, fusion(tokens, MASK, MODALITY), atol=1e-6, rtol=0)


def test_padding_with_masked_tokens_changes_nothing(fusion, tokens):
    more = torch.cat([tokens, torch.ones(4, 2, DIM)], 1)
    mask = torch.cat([MASK, torch.zeros(4, 2, dtype=torch.bool)], 1)
    found = fusion(more, mask, torch.cat([MODALITY, torch.tensor([0, 2])]))
    torch.testing.assert_close(found, fusion(tokens, MASK, MODALITY), atol=1e-6, rtol=0)


@pytest.mark.parametrize("config", [SumFusionConfig(), AttentionFusionConfig()])
def test_untrained_it_is_the_sum_of_modalities_scaled_up_for_those_that_are_missing(config, tokens):
    torch.manual_seed(0)
    fusion = config.build(DIM, 3).eval()
    found = fusion(tokens, MASK, MODALITY)
    torch.testing.assert_close(found[0], tokens[0, 0] + tokens[0, 1] + tokens[0, 2:].mean(0))
    torch.testing.assert_close(found[1], 3 / 2 * (tokens[1, 0] + tokens[1, 2:4].mean(0)))
    torch.testing.assert_close(found[2], 3 * tokens[2, 1])


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match="num_heads is 3; it must divide the model width 8"):
        AttentionFusionConfig(num_heads=3).build(8, 2)
