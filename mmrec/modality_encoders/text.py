"""Texts: a small BERT from scratch on byte-level BPE units learnt from the training items' texts.

Bytes leave no character unknown, in any script; and the library's BPE trainer finds the same units under the same
numbers each time, which its WordPiece trainer does not (measured: equal texts, other numbers in each process).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mmrec.data.dataset import Dataset
from mmrec.errors import DataError
from mmrec.modality_encoders.base import ModalityEncoder, Preprocessing, Tokens
from mmrec.modality_encoders.timm_tower import UnitHead

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["TextConfig", "TextEncoder", "TextPreprocessing"]

PADDING = "[PAD]"


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """A BERT of transformers from scratch; the default trains on a CPU."""

    max_tokens: int = 64
    """Tokens that are read; longer texts are cut."""
    vocabulary_size: int = 8_000
    """BPE units at most, learnt from the texts of items with training events."""
    width: int = 64
    """Hidden width."""
    num_layers: int = 2
    """Transformer layers."""
    num_heads: int = 2
    """Attention heads; must divide the width."""

    def fit(self, dataset: Dataset, modality: str, train_items: np.ndarray) -> TextPreprocessing:
        """Raises: DataError if no training item has a text."""
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

        rows = np.flatnonzero(train_items & dataset.present(modality))
        if len(rows) == 0:
            raise DataError("no item with a training event has a text; leave the text encoder out")
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
        tokenizer.train_from_iterator((str(dataset.read(modality, int(row))) for row in rows), trainer)
        return TextPreprocessing(tokenizer, self.max_tokens)

    def load_preprocessing(self, folder: Path) -> TextPreprocessing:
        return TextPreprocessing.load(folder)

    def build(self, dim: int, preprocessing: TextPreprocessing) -> TextEncoder:
        return TextEncoder(dim, self, preprocessing.tokenizer.get_vocab_size())


class TextPreprocessing(Preprocessing):
    """Text -> token ids, at most ``max_tokens``."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        tokenizer.enable_truncation(max_tokens)
        self.tokenizer = tokenizer

    def __call__(self, raw: str) -> np.ndarray:
        return np.array(self.tokenizer.encode(raw).ids, dtype=np.int32)

    def collate(self, samples: list[np.ndarray]) -> dict[str, Tensor]:
        longest = max(1, *(len(tokens) for tokens in samples))
        ids = np.zeros((len(samples), longest), dtype=np.int64)
        mask = np.zeros((len(samples), longest), dtype=bool)
        for row, tokens in enumerate(samples):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = True
        mask[:, 0] = True  # a text of blanks is one padding token, not an empty row
        return {"ids": torch.from_numpy(ids), "mask": torch.from_numpy(mask)}

    def save(self, folder: Path) -> None:
        self.tokenizer.save(str(folder / "tokenizer.json"))

    @classmethod
    def load(cls, folder: Path) -> TextPreprocessing:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        return cls(tokenizer, tokenizer.truncation["max_length"])


class TextEncoder(ModalityEncoder):
    """One token: the mean of the last layer over the text's tokens."""

    def __init__(self, dim: int, config: TextConfig, vocabulary_size: int) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        settings = BertConfig(
            vocab_size=vocabulary_size,
            hidden_size=config.width,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            intermediate_size=4 * config.width,
            max_position_embeddings=config.max_tokens,
            type_vocab_size=1,
        )
        self.tower = BertModel(settings, add_pooling_layer=False)
        self.head = UnitHead(config.width, dim)

    def forward(self, inputs: dict[str, Tensor]) -> Tokens:
        mask = inputs["mask"]
        hidden = self.tower(input_ids=inputs["ids"], attention_mask=mask.long()).last_hidden_state  # (P, L, W)
        pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        tokens = self.head(pooled)[:, None]
        return tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
