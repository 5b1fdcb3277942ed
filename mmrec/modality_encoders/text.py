"""Texts: a small BERT from scratch on byte-level BPE units learnt from the training items' texts.

Bytes leave no character unknown, in any script; and the library's BPE trainer finds the same units under the same
numbers each time, which its WordPiece trainer does not (measured: equal texts, other numbers in each process).
Pretrained encoders are foundation encoders, by name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmrec.data.dataset import Dataset
from mmrec.errors import ConfigError, DataError
from mmrec.modality_encoders.base import Preprocessing
from mmrec.modality_encoders.tower import TowerEncoder, UnitHead

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["TextConfig", "TextEncoder", "TextPreprocessing", "collate_tokens"]

PADDING = "[PAD]"


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """A BERT of transformers from scratch, which trains on a CPU."""

    max_tokens: int = 64
    """Tokens that are read; longer texts are cut."""
    vocabulary_size: int = 8_000
    """BPE units at most, learnt from the texts of items with training events."""
    width: int = 64
    """Hidden width."""
    num_layers: int = 1
    """Transformer layers."""
    num_heads: int = 2
    """Attention heads; must divide the width."""

    def fit(self, dataset: Dataset, modality: str, train_items: np.ndarray) -> TextPreprocessing:
        """Raises: DataError if no training item has a text; ConfigError if heads do not fit."""
        rows = np.flatnonzero(train_items & dataset.present(modality))
        if len(rows) == 0:
            raise DataError("no item with a training event has a text; leave the text encoder out")
        if self.width % self.num_heads:
            raise ConfigError(f"num_heads is {self.num_heads}; it must divide the width {self.width} of the text tower")
        architecture = {
            "model_type": "bert",
            "hidden_size": self.width,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "intermediate_size": 4 * self.width,
            "max_position_embeddings": self.max_tokens,
            "type_vocab_size": 1,
            # A tower hears the same at rest and in training, so that heads learnt from kept outputs stay right.
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        }
        tokenizer = self._learn_units(dataset, rows)
        architecture |= {"vocab_size": tokenizer.get_vocab_size(), "pad_token_id": 0}
        return TextPreprocessing(tokenizer, self.max_tokens, architecture)

    def load_preprocessing(self, folder: Path) -> TextPreprocessing:
        return TextPreprocessing.load(folder)

    def build(self, dim: int, preprocessing: TextPreprocessing) -> TextEncoder:
        return TextEncoder(dim, preprocessing)

    def _learn_units(self, dataset: Dataset, rows: np.ndarray) -> Tokenizer:
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocabulary_size,
            min_frequency=2,
            special_tokens=[PADDING],  # token 0
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator((text for _, text in dataset.texts(rows)), trainer)
        return tokenizer


class TextPreprocessing(Preprocessing):
    """Text -> token ids, at most ``max_tokens``.

    Args:
        tokenizer: text to ids.
        max_tokens: longer texts are cut.
        architecture: the network's configuration in transformers' terms, so that a checkpoint needs nothing else.
    """

    def __init__(self, tokenizer: Tokenizer, max_tokens: int, architecture: dict[str, Any]) -> None:
        tokenizer.enable_truncation(max_tokens)
        self.tokenizer = tokenizer
        self.architecture = architecture

    def __call__(self, raw: str) -> np.ndarray:
        return np.array(self.tokenizer.encode(raw).ids, dtype=np.int32)

    def collate(self, samples: list[np.ndarray]) -> dict[str, Tensor]:
        return collate_tokens(samples, self.architecture["pad_token_id"])

    def save(self, folder: Path) -> None:
        self.tokenizer.save(str(folder / "tokenizer.json"))
        (folder / "architecture.json").write_text(json.dumps(self.architecture, indent=1))

    @classmethod
    def load(cls, folder: Path) -> TextPreprocessing:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        architecture = json.loads((folder / "architecture.json").read_text())
        stored = tokenizer.truncation
        assert stored is not None, "the constructor always sets a truncation"
        return cls(tokenizer, stored["max_length"], architecture)


def collate_tokens(samples: list[np.ndarray], pad_id: int, *, pad_to: int = 0) -> dict[str, Tensor]:
    """Token ids padded on the right to the longest of the batch, and the mask of real tokens.

    Args:
        pad_to: pad to so many instead, and count padding as real, for networks that were trained with it in sight.
    """
    longest = pad_to or max(1, *(len(tokens) for tokens in samples))
    ids = np.full((len(samples), longest), pad_id, dtype=np.int64)
    mask = np.full((len(samples), longest), bool(pad_to))
    for row, tokens in enumerate(samples):
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = True
    mask[:, 0] = True  # a text of blanks is one padding token, not an empty row
    return {"ids": torch.from_numpy(ids), "mask": torch.from_numpy(mask)}


class TextEncoder(TowerEncoder):
    """One token: the mean of the last layer over the text's tokens.

    Calibrated, it starts with the units' vectors of latent semantic analysis (Deerwester et al. 1990) in its
    embeddings, so that texts with related words are near each other before anything is learnt.
    """

    def __init__(self, dim: int, preprocessing: TextPreprocessing) -> None:
        super().__init__()
        self.tower = _tower(preprocessing)
        self.head = UnitHead(self.tower.config.hidden_size, dim)

    def features(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        mask = inputs["mask"]
        hidden = self.tower(input_ids=inputs["ids"], attention_mask=mask.long()).last_hidden_state  # (P, L, W)
        pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return pooled[:, None], torch.ones_like(mask[:, :1])

    def start(self, inputs: dict[str, Tensor]) -> None:
        embeddings = self.tower.get_input_embeddings().weight  # (units, W)
        found, vectors = _latent_semantics(inputs["ids"], inputs["mask"], *embeddings.shape)
        # Longer than the positions' vectors, which are added to them.
        embeddings[found] = 5 * self.tower.config.initializer_range * embeddings.shape[1] ** 0.5 * vectors


def _latent_semantics(
    ids: Int[Tensor, "P L"], mask: Bool[Tensor, "P L"], num_units: int, width: int
) -> tuple[Int[Tensor, " U"], Float[Tensor, "U W"]]:
    """Units that stand in two texts or more, and their unit vectors by a truncated SVD of tf-idf."""
    texts = torch.arange(len(ids), device=ids.device)[:, None].expand_as(ids)
    counts = torch.zeros(len(ids), num_units, device=ids.device)
    counts.index_put_((texts[mask], ids[mask]), torch.ones((), device=ids.device), accumulate=True)
    documents = (counts > 0).sum(0)
    (found,) = torch.nonzero(documents >= 2, as_tuple=True)
    weights = torch.log1p(counts[:, found]) * torch.log(len(ids) / documents[found])
    rank = min(width, *weights.shape)
    if rank == 0:
        return found, weights.new_zeros(0, width)
    _, strengths, directions = torch.svd_lowrank(F.normalize(weights, dim=1), q=rank)
    vectors = F.normalize(directions * strengths, dim=1)
    return found, F.pad(vectors, (0, width - rank))


def _tower(preprocessing: TextPreprocessing) -> Any:
    """The network with random weights."""
    from transformers import AutoConfig, AutoModel

    settings = dict(preprocessing.architecture)
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    tower = AutoModel.from_config(config, dtype=torch.float32)
    tower.pooler = None  # nothing here reads it, and DistributedDataParallel waits for a gradient of all there is
    return tower
