"""What the feature extractors of transformers make of sounds, the same each time.

Legend: P items, L steps of the network's input (samples, or columns of a spectrogram).
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmrec.errors import ConfigError
from mmrec.media.audio import decode_audio
from mmrec.modality_encoders.foundation.name import EncoderName
from mmrec.modality_encoders.foundation.networks import loading
from mmrec.modality_encoders.foundation.preprocessing import Architecture, FoundationPreprocessing

__all__ = ["SoundPreprocessing", "describe_extractor"]

_SECONDS = 10.0
"""Seconds of a sound that are heard unless more are asked for."""


def describe_extractor(
    name: EncoderName, architecture: Architecture, extractor: Any, duration_s: float
) -> SoundPreprocessing:
    """The preprocessing of sounds by an extractor; ``duration_s`` 0: as long as it hears, ten seconds at most.

    Raises: ConfigError if it hears less than asked for, or makes something else of the same sound each time.
    """
    limit = _hears_s(extractor)
    if not 0.0 <= duration_s <= limit:
        raise ConfigError(
            f"duration_s is {duration_s:g}; {name} hears at most {limit:g} s of a sound, and 0 takes that"
        )
    if getattr(extractor, "dither", 0.0):
        extractor.dither = 0.0  # noise for training, another one each time
    # Wav2Vec 2.0 and its kind say by it whether they were trained with padding under a mask.
    architecture["hears_mask"] = bool(extractor.return_attention_mask) and limit == float("inf")
    architecture["steps_last"] = hasattr(extractor, "n_samples")  # Whisper: mel bands first
    preprocessing = SoundPreprocessing(architecture, extractor, duration_s or min(limit, _SECONDS))
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, preprocessing.num_samples).astype(np.float32)
    with loading(name, "feature extractor"):
        first, second = preprocessing.extract(noise), preprocessing.extract(noise)
    if not np.array_equal(first["values"], second["values"]):
        raise ConfigError(f"the feature extractor of {name} gives something else each time; take another encoder")
    return preprocessing


def _hears_s(extractor: Any) -> float:
    """Seconds after which an extractor cuts a sound off, or draws which part of it to take."""
    if hasattr(extractor, "max_length_s"):  # CLAP
        return float(extractor.max_length_s)
    if hasattr(extractor, "n_samples"):  # Whisper
        return extractor.n_samples / extractor.sampling_rate
    if hasattr(extractor, "max_length"):  # AST: windows of 25 ms, one each 10 ms
        return round(extractor.max_length * 0.01 + 0.015, 3)
    return float("inf")


class SoundPreprocessing(FoundationPreprocessing):
    """Bytes of a sound -> what a feature extractor of transformers makes of its first seconds, and how many steps of
    it are of the sound: the rest is padding.

    Sounds are resampled to the extractor's rate and mixed to mono; shorter ones are padded as it does it.

    Args:
        extractor: the feature extractor, or its dictionary.
        duration_s: seconds that are heard.
    """

    numbers = ("lengths",)

    def __init__(self, architecture: Architecture, extractor: Any, duration_s: float) -> None:
        super().__init__(architecture)
        self.duration_s = duration_s
        self.extractor = _extractor(extractor) if isinstance(extractor, dict) else extractor
        self.num_samples = round(duration_s * self.extractor.sampling_rate)
        # Extractors of spectrograms pad to a length of their own; those of bare samples are told one.
        self._bare = self.extractor.model_input_names[0] == "input_values" and not hasattr(
            self.extractor, "num_mel_bins"
        )
        silence = np.zeros(self.num_samples, dtype=np.float32)
        self._shape = self._steps(silence).shape

    def settings(self) -> dict[str, Any]:
        return {"extractor": json.loads(self.extractor.to_json_string()), "duration_s": self.duration_s}

    def __call__(self, raw: bytes) -> np.ndarray:
        return self.extract(decode_audio(raw, self.extractor.sampling_rate, self.duration_s)[: self.num_samples])

    def extract(self, samples: np.ndarray) -> np.ndarray:
        """Mono samples (at most ``num_samples``) -> one record of "values", float32, and "length", in steps L."""
        steps = self._steps(samples)
        record = np.zeros((), dtype=[("values", np.float32, self._shape), ("length", np.int64)])
        record["values"][tuple(map(slice, steps.shape))] = steps
        record["length"] = self._length(len(samples), steps)
        return record

    def _steps(self, samples: np.ndarray) -> np.ndarray:
        bare = {"padding": "max_length", "max_length": self.num_samples, "truncation": True} if self._bare else {}
        found = self.extractor(samples, sampling_rate=self.extractor.sampling_rate, return_tensors="np", **bare)
        return np.asarray(found[self.extractor.model_input_names[0]])[0]

    def _length(self, num_samples: int, steps: np.ndarray) -> int:
        if self._bare:
            return num_samples
        if self.architecture["steps_last"]:
            return max(1, -(-num_samples * steps.shape[-1] // self.extractor.n_samples))
        return len(steps)

    def collate(self, samples: list[np.ndarray]) -> dict[str, Tensor]:
        """ "values" (P, ...) and "lengths" (P,), of L steps."""
        records = np.stack(samples)
        return {"values": torch.from_numpy(records["values"]), "lengths": torch.from_numpy(records["length"])}

    def blank(self, num_items: int) -> dict[str, Tensor]:
        silence = self.extract(np.zeros(self.num_samples, dtype=np.float32))
        silence["values"] = np.nan_to_num(silence["values"])
        return self.collate([silence] * num_items)


def _extractor(values: dict[str, Any]) -> Any:
    import transformers

    return getattr(transformers, values["feature_extractor_type"]).from_dict(values)
