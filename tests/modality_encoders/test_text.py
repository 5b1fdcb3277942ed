"""Texts: units learnt from the data, and pretrained encoders from a local folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mmrec.data.dataset import Dataset
from mmrec.errors import ConfigError, DataError
from mmrec.modality_encoders import TextConfig
from mmrec.modality_encoders.text import TextEncoder, TextPreprocessing

EVERYTHING = np.ones(24, dtype=bool)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> Path:
    """A BERT of one layer with its tokenizer, as transformers stores them."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("pretrained")
    units = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]", "red", "green", "blue", "grey", "thing"]
    (folder / "vocab.txt").write_text("\n".join(units))
    BertTokenizerFast.from_pretrained(folder).save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(3)
    BertModel(BertConfig(vocab_size=len(units), max_position_embeddings=16, **sizes)).save_pretrained(folder)
    return folder


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
        self.texts = texts

    def present(self, name: str) -> np.ndarray:
        return np.ones(len(self.texts), dtype=bool)

    def read(self, name: str, item_idx: int) -> str:
        return self.texts[item_idx]


def test_heads_that_do_not_divide_the_width_are_an_error(tiny_dataset):
    with pytest.raises(ConfigError, match="num_heads is 3; it must divide the width 64"):
        TextConfig(num_heads=3).fit(tiny_dataset, "text", EVERYTHING)


def pretrained_encoder(folder: Path, dataset: Dataset) -> tuple[TextPreprocessing, TextEncoder]:
    """As a new run makes it: fitted, stored, read again, built, calibrated."""
    config = TextConfig(path=folder, max_tokens=16)
    stored = folder / "stored"
    stored.mkdir(exist_ok=True)
    config.fit(dataset, "text", EVERYTHING).save(stored)
    preprocessing = config.load_preprocessing(stored)
    encoder = config.build(8, preprocessing).eval()
    encoder.calibrate(preprocessing.collate([preprocessing("red"), preprocessing("blue thing")]), torch.eye(8))
    return preprocessing, encoder


def test_a_pretrained_encoder_computes_what_transformers_computes(pretrained, tiny_dataset):
    from transformers import AutoModel, AutoTokenizer

    preprocessing, encoder = pretrained_encoder(pretrained, tiny_dataset)
    texts = ["red thing", "Grey thing green blue thing"]
    reference = AutoTokenizer.from_pretrained(pretrained)(texts, padding=True, return_tensors="pt")
    hidden = AutoModel.from_pretrained(pretrained).eval()(**reference).last_hidden_state
    mask = reference["attention_mask"][..., None]
    expected = encoder.head((hidden * mask).sum(1) / mask.sum(1))
    inputs = preprocessing.collate([preprocessing(text) for text in texts])
    torch.testing.assert_close(inputs["ids"], reference["input_ids"])
    torch.testing.assert_close(encoder(inputs)[0][:, 0], expected, atol=1e-6, rtol=0)


def test_every_parameter_of_a_pretrained_encoder_takes_part(pretrained, tiny_dataset):
    preprocessing, encoder = pretrained_encoder(pretrained, tiny_dataset)
    tokens, _ = encoder(preprocessing.collate([preprocessing("red thing")]))
    (tokens * torch.arange(8.0)).sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_a_checkpoint_of_a_pretrained_encoder_does_not_need_the_folder(pretrained, tiny_dataset, tmp_path):
    folder = tmp_path / "encoder"
    shutil.copytree(pretrained, folder)
    config = TextConfig(path=folder, max_tokens=16)
    preprocessing, encoder = pretrained_encoder(folder, tiny_dataset)
    (tmp_path / "saved").mkdir()
    preprocessing.save(tmp_path / "saved")
    shutil.rmtree(folder)
    loaded = config.load_preprocessing(tmp_path / "saved")
    rebuilt = config.build(8, loaded).eval()
    rebuilt.load_state_dict(encoder.state_dict())
    inputs = loaded.collate([loaded("red thing"), loaded("blue")])
    torch.testing.assert_close(rebuilt(inputs)[0], encoder(inputs)[0], atol=0, rtol=0)
    assert str(folder) not in (tmp_path / "saved" / "architecture.json").read_text()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_tokens": 17}, "max_tokens is 17; .* reads at most 16"),
        ({"max_tokens": 16, "width": 32}, "width has no effect beside path"),
        ({"path": Path("nowhere")}, "give a local folder with config.json, weights and a tokenizer"),
    ],
)
def test_settings_at_odds_with_the_folder_are_errors(pretrained, tiny_dataset, settings, message):
    with pytest.raises(ConfigError, match=message):
        TextConfig(**{"path": pretrained, **settings}).fit(tiny_dataset, "text", EVERYTHING)


def test_a_folder_without_weights_is_an_error(pretrained, tiny_dataset, tmp_path):
    shutil.copytree(pretrained, tmp_path / "encoder")
    (tmp_path / "encoder" / "model.safetensors").unlink()
    config = TextConfig(path=tmp_path / "encoder", max_tokens=16)
    preprocessing = config.fit(tiny_dataset, "text", EVERYTHING)
    with pytest.raises(ConfigError, match="transformers cannot load the weights"):
        config.build(8, preprocessing).calibrate(preprocessing.collate([preprocessing("red")]), torch.eye(8))


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
