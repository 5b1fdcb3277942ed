"""What sentence-transformers stores beside a text encoder: how it pools, and what it sets before a text."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

from mmrec.errors import ConfigError
from mmrec.modality_encoders.foundation.name import EncoderName

__all__ = ["document_prefix", "stored_pool"]

logger = logging.getLogger(__name__)

_POOLS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
    "mean": "mean",
    "cls": "cls",
    "lasttoken": "last",
    "last": "last",
}

_E5 = re.compile(r"(^|[/_-])e5-(small|base|large)(-unsupervised)?(-v\d+)?$")
"""Names of the encoders whose publisher tells of prefixes on the model's page, and in no file."""


def stored_pool(name: EncoderName, source: str) -> str | None:
    """How the encoder was trained to pool; None where nothing is stored.

    Raises: ConfigError if it is a pooling that mmrec has not, or more comes after it.
    """
    for module in _stored(source, "modules.json") or []:
        if str(module.get("type", "")).endswith("Dense"):
            raise ConfigError(
                f"{name} ends in layers of sentence-transformers ({module.get('path')}), which mmrec does not load; "
                "give pool mean, cls or last to go without them"
            )
    stored = _stored(source, "1_Pooling/config.json")
    if stored is None:
        return None
    named = [stored["pooling_mode"]] if isinstance(stored.get("pooling_mode"), str) else []
    chosen = named or [key for key, value in stored.items() if key.startswith("pooling_mode_") and value]
    if len(chosen) != 1 or chosen[0] not in _POOLS:
        raise ConfigError(f"{name} asks for a pooling that mmrec has not; give pool mean, cls or last")
    return _POOLS[chosen[0]]


def document_prefix(name: EncoderName, source: str) -> str:
    """What the encoder was trained to find before a text that is searched for; empty for most."""
    stored = _stored(source, "config_sentence_transformers.json") or {}
    prompts = stored.get("prompts") or {}
    for key in ("document", "passage", stored.get("default_prompt_name")):
        if key in prompts:
            return prompts[key]
    plain = Path(name.name).name if name.folder is not None else name.name
    if not _E5.search(plain.lower()):
        return ""
    logger.info("%s is of the E5 family: 'passage: ' stands before each text (prefix '' leaves it out)", name)
    return "passage: "


def _stored(source: str, file: str) -> Any:
    """The content of a JSON file beside the weights, in a folder or in the hub's cache; None where there is none.

    Raises: ConfigError if it is damaged.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, RepositoryNotFoundError

    path = Path(source) / file
    if not Path(source).is_dir():
        try:
            path = Path(hf_hub_download(source, file))
        except (EntryNotFoundError, RepositoryNotFoundError, HFValidationError):
            return None
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ConfigError(f"{path} is damaged: {error}") from error
