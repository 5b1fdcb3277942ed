"""The recommender's losses against loops over the events of a step, in float64: every switch does what it says."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmrec.errors import ConfigError
from mmrec.model import ModelConfig
from mmrec.objectives import ContrastiveConfig, NextItemConfig, seen_candidates
from mmrec.training import preset
from mmrec.training.trainer import Trainer


def step_of(dataset, run, next_item=None, contrastive=None, weighted=False):
    """A model in float64 whose every parameter matters, and its first step."""
    config = preset("features", dataset)
    parts = {"next_item": next_item or NextItemConfig(), "contrastive": contrastive or ContrastiveConfig(weight=0.0)}
    model_config = dataclasses.replace(config.model, **parts)
    trainer = Trainer(dataclasses.replace(config, model=model_config, out=run, batch_size=12, modality_dropout=0.0))
    model = trainer.recommender.double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    if weighted:
        drawn = np.random.default_rng(0).uniform(0.1, 9, len(trainer.sampler.train.item_idx)).astype(np.float32)
        trainer.sampler.train = dataclasses.replace(trainer.sampler.train, weights=drawn)
    step = next(iter(trainer.loader.epoch(0)))
    inputs = {
        name: {key: value.double() if value.is_floating_point() else value for key, value in group.items()}
        for name, group in step.items.inputs.items()
    }
    return trainer, model, dataclasses.replace(step, items=dataclasses.replace(step.items, inputs=inputs))


def written_out(trainer, model, step, config: NextItemConfig) -> torch.Tensor:
    """Event by event: which candidates count, and for how much."""
    table = dict(zip(step.step_items.tolist(), model.encode_items(step.items), strict=True))
    sequences = step.sequences
    users = model.encode_users(torch.stack([table[n] for n in sequences.item_idx.tolist()]), sequences)
    scale, num_train = model.log_scale.exp()[0], int(trainer.split.train_items.sum())
    frequency = trainer.sampler.frequency
    drawn = 0 if config.negatives == "in_batch" else min(config.num_negatives, num_train)
    targets_drawn = 0 if config.negatives == "uniform" else step.num_targets
    losses = []
    for start, stop in zip(sequences.offsets.tolist(), sequences.offsets[1:].tolist(), strict=False):
        for n in range(start, stop):
            target = int(sequences.target_idx[n])
            seen = set(sequences.item_idx[start : n + 1].tolist()) if config.exclude_seen else set()
            kept = [c for c in step.candidate_idx.tolist() if c != target and c not in seen]
            score = {c: scale * users[n] @ table[c] for c in [target, *kept]}
            if config.loss == "softmax":
                total = score[target].exp()
                for c in kept:
                    inclusion = 1 - (1 - drawn / num_train) * (1 - frequency[c]) ** targets_drawn
                    total = total + score[c].exp() / (inclusion if config.log_q else 1.0)
                losses.append(total.log() - score[target])
                continue
            bias = model.logit_bias["next_item"][0]
            alpha = len(kept) / (num_train - 1)
            beta = 1 + config.calibration * (alpha - 1)
            loss = -beta * F.logsigmoid(score[target] + bias)
            for c in kept:
                loss = loss - F.logsigmoid(-score[c] - bias)
            losses.append(loss / (len(kept) + 1))
    weights = torch.ones(len(losses)) if sequences.weights is None else sequences.weights
    return (torch.stack(losses) * weights.double()).sum() / weights.double().sum()


CASES = {
    "as the presets have it": NextItemConfig(num_negatives=6),
    "without logQ": NextItemConfig(num_negatives=6, log_q=False),
    "seen items are negatives": NextItemConfig(num_negatives=6, exclude_seen=False),
    "uniform": NextItemConfig(num_negatives=6, negatives="uniform"),
    "in batch": NextItemConfig(negatives="in_batch"),
    "everything": NextItemConfig(num_negatives=1000),
    "gbce": NextItemConfig(num_negatives=6, loss="gbce", negatives="uniform", calibration=0.6),
}


@pytest.mark.parametrize("weighted", [False, True], ids=["all alike", "weighted"])
@pytest.mark.parametrize("name", CASES)
def test_the_next_item_loss_and_its_gradients_follow_every_switch(tiny_dataset_path, tmp_path, name, weighted):
    config = CASES[name]
    trainer, model, step = step_of(tiny_dataset_path, tmp_path / "run", config, weighted=weighted)
    found, expected = model(step)["next_item"], written_out(trainer, model, step, config)
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-6)  # log_inclusion is float32
    inputs = [p for p in model.parameters() if p.requires_grad]
    gradients = (torch.autograd.grad(value, inputs, allow_unused=True) for value in (found, expected))
    compared = 0
    for gradient, reference in zip(*gradients, strict=True):
        if reference is not None:
            torch.testing.assert_close(gradient, reference, atol=1e-6, rtol=1e-5)
            compared += bool(reference.abs().max() > 1e-5)
    assert compared > 15, "the gradients are compared, not their absence"


@pytest.mark.parametrize("form", ["info_nce", "sigmoid"])
def test_the_contrastive_loss_goes_both_ways_between_last_vectors_and_targets(tiny_dataset_path, tmp_path, form):
    contrastive = ContrastiveConfig(weight=1.0, form=form)
    _, model, step = step_of(tiny_dataset_path, tmp_path / "run", contrastive=contrastive, weighted=True)
    table = dict(zip(step.step_items.tolist(), model.encode_items(step.items), strict=True))
    sequences = step.sequences
    after = model.encode_users(torch.stack([table[n] for n in sequences.item_idx.tolist()]), sequences)
    last = [stop - 1 for stop in sequences.offsets[1:].tolist()]
    targets = sequences.target_idx[last].tolist()
    scores = model.log_scale.exp()[0] * after[last] @ torch.stack([table[n] for n in targets]).T
    total = torch.zeros((), dtype=torch.float64)
    weights = sequences.weights[last].double()
    for b, target in enumerate(targets):
        others = [c for c in range(len(targets)) if targets[c] != target]
        if form == "info_nce":
            for row in (scores[b], scores[:, b]):
                total = total + weights[b] * (row[[b, *others]].logsumexp(0) - row[b]) / 2
        else:
            bias = model.logit_bias["contrastive"][0]
            pairs = F.logsigmoid(scores[b, b] + bias) + F.logsigmoid(-scores[b, others] - bias).sum()
            total = total - weights[b] * pairs
    torch.testing.assert_close(model(step)["contrastive"], total / weights.sum())


def test_what_was_seen_is_held_in_memory_that_grows_with_the_events(tiny_dataset_path):
    """Pairs of event and seen item grow with the square of the length: 8 million here."""
    from mmrec.batch import SequenceBatch

    length = 4096
    sequences = SequenceBatch(
        item_idx=torch.arange(length), offsets=torch.tensor([0, length]), target_idx=torch.arange(1, length + 1)
    )
    runs = seen_candidates(sequences, torch.arange(0, 2 * length, 2), torch.ones(length, dtype=torch.bool))
    assert sum(part.numel() for part in runs) <= 3 * length / 2


@pytest.mark.parametrize("temperature", [0.0, 1e-4, 1.5, math.nan])
def test_a_temperature_out_of_range_is_refused(temperature):
    from mmrec.item_encoder import ItemEncoderConfig

    with pytest.raises(ConfigError, match=f"temperature is {temperature}; it must lie between 0.01 and 1"):
        ModelConfig(item_encoder=ItemEncoderConfig(encoders={}), temperature=temperature)
