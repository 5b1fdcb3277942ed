"""Texts: a small BERT from scratch on byte-level BPE units learnt from the training items' texts.

Bytes leave no character unknown, in any script; and the library's BPE trainer finds the same units under the same
numbers each time, which its WordPiece trainer does not (measured: equal texts, other numbers in each process).

Or, with ``path``, a pretrained encoder and its tokenizer from a local folder in the layout of transformers.
"""

from __future__ import annotations

import dataclasses
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

__all__ = ["TextConfig", "TextEncoder", "TextPreprocessing"]

PADDING = "[PAD]"


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """A BERT of transformers from scratch, which trains on a CPU, or a pretrained encoder."""

    path: Path | None = None
    """Local folder of a transformers text encoder and its tokenizer, to start from; the sizes below are then its own
    and must be left alone, but for max_tokens."""
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
        """Raises: DataError if no training item has a text; ConfigError if ``path`` cannot be used."""
        rows = np.flatnonzero(train_items & dataset.present(modality))
        if len(rows) == 0:
            raise DataError("no item with a training event has a text; leave the text encoder out")
        if self.path is not None:
            return self._pretrained(self.path)
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
        tokenizer = self._learn_units(dataset, modality, rows)
        architecture |= {"vocab_size": tokenizer.get_vocab_size(), "pad_token_id": 0}
        return TextPreprocessing(tokenizer, self.max_tokens, architecture)

    def load_preprocessing(self, folder: Path) -> TextPreprocessing:
        return TextPreprocessing.load(folder)

    def build(self, dim: int, preprocessing: TextPreprocessing) -> TextEncoder:
        return TextEncoder(dim, self, preprocessing)

    def _learn_units(self, dataset: Dataset, modality: str, rows: np.ndarray) -> Tokenizer:
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
        tokenizer.train_from_iterator((str(dataset.read(modality, int(row))) for row in rows), trainer)
        return tokenizer

    def _pretrained(self, path: Path) -> TextPreprocessing:
        from transformers import AutoConfig, AutoTokenizer

        for field in dataclasses.fields(self):
            if field.name not in ("path", "max_tokens") and getattr(self, field.name) != field.default:
                raise ConfigError(f"{field.name} has no effect beside path={str(path)!r}, whose sizes count; drop one")
        if not (path / "config.json").is_file():
            raise ConfigError(f"path is {str(path)!r}; give a local folder with config.json, weights and a tokenizer")
        try:
            settings = AutoConfig.from_pretrained(path, local_files_only=True)
            tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        except (OSError, ValueError) as error:
            raise ConfigError(f"transformers cannot load {path}: {str(error).strip().splitlines()[0]}") from error
        if settings.is_encoder_decoder or not tokenizer.is_fast:
            raise ConfigError(f"{path} is no text encoder with a fast tokenizer; take one of the kind of BERT")
        limit = min(tokenizer.model_max_length, getattr(settings, "max_position_embeddings", self.max_tokens))
        if self.max_tokens > limit:
            raise ConfigError(f"max_tokens is {self.max_tokens}; {path} reads at most {limit}")
        architecture = json.loads(settings.to_json_string(use_diff=True)) | {
            "model_type": settings.model_type,
            "pad_token_id": tokenizer.pad_token_id or 0,
        }
        return TextPreprocessing(tokenizer.backend_tokenizer, self.max_tokens, architecture)


class TextPreprocessing(Preprocessing):
    """Text -> token ids, at most ``max_tokens``.

    Args:
        tokenizer: text to ids.
        max_tokens: longer texts are cut.
        architecture: the network's configuration in transformers' terms, so that a checkpoint needs nothing else.
    """

    def __init__(self, tokenizer: Tokenizer, max_tokens: int, architecture: dict[str, Any]) -> None:
        tokenizer.no_padding()  # stored tokenizers may pad every text to one length; batches here pad to their longest
        tokenizer.enable_truncation(max_tokens)
        self.tokenizer = tokenizer
        self.architecture = architecture

    def __call__(self, raw: str) -> np.ndarray:
        return np.array(self.tokenizer.encode(raw).ids, dtype=np.int32)

    def collate(self, samples: list[np.ndarray]) -> dict[str, Tensor]:
        longest = max(1, *(len(tokens) for tokens in samples))
        ids = np.full((len(samples), longest), self.architecture["pad_token_id"], dtype=np.int64)
        mask = np.zeros((len(samples), longest), dtype=bool)
        for row, tokens in enumerate(samples):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = True
        mask[:, 0] = True  # a text of blanks is one padding token, not an empty row
        return {"ids": torch.from_numpy(ids), "mask": torch.from_numpy(mask)}

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


class TextEncoder(TowerEncoder):
    """One token: the mean of the last layer over the text's tokens.

    Calibrated, a network from scratch starts with the units' vectors of latent semantic analysis (Deerwester et al.
    1990) in its embeddings, so that texts with related words are near each other before anything is learnt.
    """

    def __init__(self, dim: int, config: TextConfig, preprocessing: TextPreprocessing) -> None:
        super().__init__()
        self.path = config.path
        self.tower = _tower(preprocessing)
        self.head = UnitHead(self.tower.config.hidden_size, dim)

    def features(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        mask = inputs["mask"]
        hidden = self.tower(input_ids=inputs["ids"], attention_mask=mask.long()).last_hidden_state  # (P, L, W)
        pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return pooled[:, None], torch.ones_like(mask[:, :1])

    def start(self, inputs: dict[str, Tensor]) -> None:
        """Raises: ConfigError if the weights in ``path`` do not load."""
        if self.path is not None:
            self.tower.load_state_dict(_pretrained_tower(self.path).state_dict())
            return
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


def _pretrained_tower(path: Path) -> Any:
    """The network with the weights of a folder. Raises: ConfigError if they do not load."""
    from transformers import AutoModel

    try:
        return _without_pooler(AutoModel.from_pretrained(path, local_files_only=True, dtype=torch.float32))
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise ConfigError(f"transformers cannot load the weights in {path}: {first}") from error


def _tower(preprocessing: TextPreprocessing) -> Any:
    """The network with random weights."""
    from transformers import AutoConfig, AutoModel

    settings = dict(preprocessing.architecture)
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    return _without_pooler(AutoModel.from_config(config, dtype=torch.float32))


def _without_pooler(tower: Any) -> Any:
    if getattr(tower, "pooler", None) is not None:
        tower.pooler = None  # nothing here reads it, and DistributedDataParallel waits for a gradient of all there is
    return tower
