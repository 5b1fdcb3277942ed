"""Fusion against its definition: what is absent has no influence, what is present has its share."""

from __future__ import annotations

import pytest
import torch

from mmrec.errors import ConfigError
from mmrec.fusion import FUSIONS, AttentionFusion, AttentionFusionConfig, SumFusionConfig

DIM = 8
MODALITY = torch.tensor([0, 1, 2, 2, 2])  # one picture, one text, three frames


@pytest.fixture
def tokens() -> torch.Tensor:
    """In double precision: these are exact properties, and another processor adds float32 in another order."""
    return torch.randn(4, 5, DIM, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 1, 1, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)


@pytest.fixture(params=sorted(FUSIONS))
def fusion(request):
    torch.manual_seed(0)
    module = FUSIONS[request.param]().build(DIM, 3).eval().double()
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
        torch.testing.assert_close(alone[0], together[row], atol=1e-12, rtol=0)


def test_the_order_of_tokens_does_not_matter(fusion, tokens):
    order = torch.tensor([3, 0, 4, 2, 1])
    found = fusion(tokens[:, order], MASK[:, order], MODALITY[order])
    torch.testing.assert_close(found, fusion(tokens, MASK, MODALITY), atol=1e-12, rtol=0)


def test_padding_with_masked_tokens_changes_nothing(fusion, tokens):
    more = torch.cat([tokens, torch.ones(4, 2, DIM, dtype=tokens.dtype)], 1)
    mask = torch.cat([MASK, torch.zeros(4, 2, dtype=torch.bool)], 1)
    found = fusion(more, mask, torch.cat([MODALITY, torch.tensor([0, 2])]))
    torch.testing.assert_close(found, fusion(tokens, MASK, MODALITY), atol=1e-12, rtol=0)


@pytest.mark.parametrize("config", [SumFusionConfig(), AttentionFusionConfig()])
def test_untrained_it_is_the_sum_of_modalities_scaled_up_for_those_that_are_missing(config, tokens):
    torch.manual_seed(0)
    fusion = config.build(DIM, 3).eval().double()
    found = fusion(tokens, MASK, MODALITY)
    torch.testing.assert_close(found[0], tokens[0, 0] + tokens[0, 1] + tokens[0, 2:].mean(0))
    torch.testing.assert_close(found[1], 3 / 2 * (tokens[1, 0] + tokens[1, 2:4].mean(0)))
    torch.testing.assert_close(found[2], 3 * tokens[2, 1])


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match="num_heads is 3; it must divide the model width 8"):
        AttentionFusionConfig(num_heads=3).build(8, 2)


@pytest.mark.parametrize("name", ["mean", "gated", "concat"])
def test_untrained_these_are_the_mean_of_the_modalities_that_are_there(name, tokens):
    torch.manual_seed(0)
    found = FUSIONS[name]().build(DIM, 3).eval().double()(tokens, MASK, MODALITY)
    torch.testing.assert_close(found[0], (tokens[0, 0] + tokens[0, 1] + tokens[0, 2:].mean(0)) / 3)
    torch.testing.assert_close(found[1], (tokens[1, 0] + tokens[1, 2:4].mean(0)) / 2)
    torch.testing.assert_close(found[2], tokens[2, 1])


def test_items_without_anything_get_one_learned_vector(fusion, tokens):
    nothing = torch.zeros(2, 5, dtype=torch.bool)
    first, second = fusion(tokens[:2], nothing, MODALITY)
    torch.testing.assert_close(first, second, atol=0, rtol=0)
    assert first.norm() > 0
    first.sum().backward()
    learned = fusion.sum.nothing if hasattr(fusion, "sum") else fusion.nothing
    assert learned.grad is not None


def test_shares_sum_to_one_over_what_an_item_has(fusion, tokens):
    shares = fusion.shares(tokens, MASK, MODALITY)
    torch.testing.assert_close(shares.sum(1), torch.tensor([1.0, 1.0, 1.0, 0.0]).double())
    assert (shares[1:, [1]] == 0).sum() >= 2, "what is absent has no share"
    assert shares[2].tolist() == [0, 1, 0]


def test_the_share_of_a_modality_in_attention_is_the_mean_of_its_attention_weights(tokens):
    torch.manual_seed(1)
    fusion = AttentionFusionConfig(num_heads=2, num_latents=3).build(DIM, 3).eval().double()
    for parameter in fusion.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    seen = tokens * DIM**0.5 + fusion.modality[MODALITY]
    key = fusion.key_value(seen)[..., :DIM]
    expected = torch.zeros(4, 3, dtype=torch.float64)
    for item in range(3):
        real = MASK[item]
        for head in range(2):
            part = slice(4 * head, 4 * head + 4)
            weights = (fusion.latents[:, part] @ key[item, real][:, part].T / 4**0.5).softmax(-1).mean(0)
            for weight, modality in zip(weights, MODALITY[real], strict=True):
                expected[item, modality] += weight / 2
    torch.testing.assert_close(fusion.shares(tokens, MASK, MODALITY), expected)


def test_weights_tell_the_tokens_of_a_modality_apart(fusion, tokens):
    weights = fusion.weights(tokens, MASK, MODALITY)
    assert (weights[~MASK] == 0).all()
    torch.testing.assert_close(weights.sum(1), torch.tensor([1.0, 1.0, 1.0, 0.0]).double())
    frames = weights[0, 2:]
    assert (frames.max() - frames.min() > 1e-3) == isinstance(fusion, AttentionFusion), "attention alone looks at each"


@pytest.mark.parametrize("name", ["sum", "mean", "gated"])
def test_weights_and_tokens_make_the_vector_where_it_is_a_sum(name, tokens):
    """The sum of gates is the weighted mean times the sum of the gates, over the share of modalities that are there."""
    torch.manual_seed(0)
    fusion = FUSIONS[name]().build(DIM, 3).eval().double()
    for parameter in fusion.parameters():
        torch.nn.init.normal_(parameter, mean=1.0, std=0.1)
    weighted = torch.einsum("it,itd->id", fusion.weights(tokens, MASK, MODALITY), tokens)
    factor = torch.ones(3, 1).double()
    if name == "sum":
        present = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0]]).double()
        factor = ((present * fusion.gate).sum(1) * 3 / present.sum(1))[:, None]
    torch.testing.assert_close(fusion(tokens, MASK, MODALITY)[:3], factor * weighted[:3])


def test_an_absent_modality_changes_nothing(fusion, tokens):
    """A column of it beside the others, whatever stands there, or no column at all."""
    with_text = MASK & (MODALITY != 1)
    without = MODALITY != 1
    found = fusion(tokens[:, without], with_text[:, without], MODALITY[without])
    torch.testing.assert_close(found, fusion(tokens, with_text, MODALITY), atol=1e-12, rtol=0)
    shares = fusion.shares(tokens[:, without], with_text[:, without], MODALITY[without])
    torch.testing.assert_close(shares, fusion.shares(tokens, with_text, MODALITY), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", sorted(FUSIONS))
def test_the_order_of_modalities_does_not_matter(name, tokens):
    """The same model with its modalities in another order: their parameters change places with them."""
    torch.manual_seed(0)
    fusion = FUSIONS[name]().build(DIM, 3).eval().double()
    for parameter in fusion.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    other = FUSIONS[name]().build(DIM, 3).eval().double()
    order = [2, 0, 1]  # the new place n has the modality that was at order[n]
    weights = fusion.state_dict()
    for parameter, axis in fusion.by_modality.items():
        parts = weights[parameter].chunk(3, axis)
        weights[parameter] = torch.cat([parts[place] for place in order], axis)
    other.load_state_dict(weights)
    renamed = torch.tensor([order.index(modality) for modality in MODALITY.tolist()])
    found = other(tokens, MASK, renamed)
    torch.testing.assert_close(found, fusion(tokens, MASK, MODALITY), atol=1e-12, rtol=0)
    shares = other.shares(tokens, MASK, renamed)
    torch.testing.assert_close(shares, fusion.shares(tokens, MASK, MODALITY)[:, order], atol=1e-12, rtol=0)


def test_what_dropout_hides_of_an_item_does_not_depend_on_which_modalities_the_batch_has(tokens):
    """Each rank has its own share of a step's items, and columns only for the modalities that these have."""
    fusion = AttentionFusionConfig(dropout=0.5).build(DIM, 3).double()
    for parameter in fusion.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    keys = torch.tensor([11, 12, 13, 14])
    whole = fusion(tokens[2:3], MASK[2:3], MODALITY, keys[2:3])  # item 2 has a text alone
    alone = fusion(tokens[2:3, 1:2], MASK[2:3, 1:2], MODALITY[1:2], keys[2:3])
    torch.testing.assert_close(alone, whole, atol=1e-12, rtol=0)
    assert (fusion(tokens[2:3], MASK[2:3], MODALITY, keys[3:]) - whole).abs().max() > 1e-3, "another key, another mask"
