"""Texts: units learnt from the data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pytest
import torch

from mmrec.errors import ConfigError, DataError
from mmrec.modality_encoders import TextConfig
from mmrec.modality_encoders.text import TextPreprocessing

EVERYTHING = np.ones(24, dtype=bool)


@pytest.fixture(scope="module")
def preprocessing(tiny_dataset) -> TextPreprocessing:
    return TextConfig().fit(tiny_dataset, "text", EVERYTHING)


def test_no_character_is_unknown_in_any_script(preprocessing):
    for text in ("red thing", "красная вещь", "赤いもの", "🎈", "\x00\ufffd"):
        ids = preprocessing(text)
        assert len(ids) > 0
        assert (ids > 0).all(), "0 is padding"


def test_long_texts_are_cut_and_blank_ones_are_one_token(preprocessing):
    assert len(preprocessing("thing " * 1000)) == 64
    batch = preprocessing.collate([preprocessing(""), preprocessing("red thing")])
    assert batch["mask"][0].tolist() == [True] + [False] * (batch["mask"].shape[1] - 1)


def test_learning_units_twice_gives_the_same_units(preprocessing, tiny_dataset):
    again = TextConfig().fit(tiny_dataset, "text", EVERYTHING)
    assert again.tokenizer.to_str() == preprocessing.tokenizer.to_str()


def test_no_training_text_is_an_error(tiny_dataset):
    with pytest.raises(DataError, match="no item with a training event has a text"):
        TextConfig().fit(tiny_dataset, "text", np.zeros(24, dtype=bool))


class Texts:
    """A dataset of texts and nothing else."""

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts

    def present(self, name: str) -> np.ndarray:
        return np.ones(len(self._texts), dtype=bool)

    def texts(self, items: Iterable[int]) -> Iterator[tuple[int, str]]:
        return ((item, self._texts[item]) for item in items)

    def read(self, name: str, item_idx: int) -> str:
        return self._texts[item_idx]


def test_heads_that_do_not_divide_the_width_are_an_error(tiny_dataset):
    with pytest.raises(ConfigError, match="num_heads is 3; it must divide the width 64"):
        TextConfig(num_heads=3).fit(tiny_dataset, "text", EVERYTHING)


def test_a_network_from_scratch_starts_with_texts_of_related_words_near_each_other():
    """Two topics that share no word but the commonest: told apart before anything is learnt, by words seen together."""
    generator = np.random.default_rng(0)
    topics = [["oak", "leaf", "root", "bark", "twig", "moss"], ["gear", "bolt", "axle", "rotor", "piston", "valve"]]
    texts = [" ".join(["the", *generator.choice(topics[n % 2], 3, replace=False)]) for n in range(200)]
    config = TextConfig()
    preprocessing = config.fit(Texts(texts), "text", np.ones(200, dtype=bool))
    torch.manual_seed(0)
    encoder = config.build(8, preprocessing).eval()
    inputs = preprocessing.collate([preprocessing(text) for text in texts])

    def likeness() -> tuple[float, float]:
        """Mean cosine within and between the topics."""
        with torch.no_grad():
            features = encoder.features(inputs)[0][:, 0]
        unit = torch.nn.functional.normalize(features - features.mean(0), dim=1)
        cosines = unit @ unit.T
        same = torch.arange(200)[:, None] % 2 == torch.arange(200) % 2
        return float(cosines[same].mean()), float(cosines[~same].mean())

    random_within, _ = likeness()
    encoder.calibrate(inputs, torch.eye(8))
    within, between = likeness()
    assert within > 0.7 > random_within
    assert between < -0.7
