"""The moving average against its recursion, and that the model is given back as it was."""

from __future__ import annotations

import torch

from mmrec.training.weight_average import WeightAverage


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    made = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    made[1].bias.requires_grad_(False)
    return made.double()


def test_it_is_the_recursion_written_out():
    network = model()
    average = WeightAverage(network, 0.9)
    expected = network[0].weight.detach().clone()
    for step in range(30):
        with torch.no_grad():
            network[0].weight.add_(0.1 * (step + 1))
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * network[0].weight.detach()
    torch.testing.assert_close(average.average["0.weight"], expected)


def test_within_the_model_has_the_average_and_afterwards_its_own_weights():
    network = model()
    average = WeightAverage(network, 0.5)
    first = network[0].weight.detach().clone()
    with torch.no_grad():
        network[0].weight.mul_(3.0)
    with average.in_place():
        torch.testing.assert_close(network[0].weight, first)
    torch.testing.assert_close(network[0].weight, 3.0 * first)
    with average.in_place():
        torch.testing.assert_close(network[0].weight, first)


def test_weights_that_do_not_learn_have_no_average_until_they_do():
    network = model()
    average = WeightAverage(network, 0.5)
    assert "1.bias" not in average.average
    network[1].bias.requires_grad_(True)
    average.update(0)
    torch.testing.assert_close(average.average["1.bias"], network[1].bias.detach())
