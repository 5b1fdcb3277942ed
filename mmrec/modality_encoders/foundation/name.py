"""The name of a foundation encoder: one string that says where it is at home, what it is, and whose weights it has.

``FRAMEWORK:NAME``, with ``@random`` behind it for the architecture with random weights:

- ``timm:vit_base_patch16_dinov3.lvd1689m``, as timm knows it;
- ``open_clip:ViT-B-16-SigLIP2/webli``, model and tag of its weights;
- ``transformers:answerdotai/ModernBERT-base``, as the hub knows it; with ``@random`` also a bare model type
  (``transformers:videomae@random``), in its default size;
- ``torchvision:mvit_v2_s``, video networks; ``torchvision:/folder`` with the weights that torchvision downloads;
- ``timm:/folder``, ``open_clip:/folder``, ``transformers:/folder``: configuration, weights and preprocessing on disk;
  ``path:/folder`` finds out which of the three it is.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

from mmrec.errors import ConfigError, unknown_name

__all__ = ["FRAMEWORKS", "EncoderName", "require_home"]

FRAMEWORKS = {
    "image": ("timm", "open_clip", "transformers"),
    "text": ("transformers", "open_clip"),
    "audio": ("transformers",),
    "video": ("transformers", "torchvision", "timm", "open_clip"),
}
"""By modality, the libraries that have encoders for it. Those of pictures read clips frame by frame."""

_PACKAGES = {"open_clip": "open_clip_torch"}
"""What libraries are called where they are installed from, if not as they are imported."""

_RANDOM = "@random"


@dataclass(frozen=True)
class EncoderName:
    """A name in its parts.

    Attributes:
        framework: a library of FRAMEWORKS.
        name: as that library knows the network; the folder for one on disk.
        folder: of a network on disk, else None.
        random: whether the weights are random.
    """

    framework: str
    name: str
    folder: Path | None
    random: bool

    def __str__(self) -> str:
        return f"{self.framework}:{self.name}{_RANDOM if self.random else ''}"

    @classmethod
    def parse(cls, text: str, modality: str) -> EncoderName:
        """Raises: ConfigError if the string is no such name, names no library for the modality or one that is not
        installed, or no folder."""
        framework, colon, name = text.partition(":")
        name, random, rest = name.partition(_RANDOM)
        if not colon or not name or rest:
            raise ConfigError(
                f"encoder {text!r} is no name; write FRAMEWORK:NAME, such as timm:vit_base_patch16_dinov3.lvd1689m, "
                "transformers:/folder or path:/folder, and @random behind it for random weights"
            )
        frameworks = FRAMEWORKS[modality]
        if framework not in (*frameworks, "path"):
            raise ConfigError(unknown_name(f"framework of {modality} encoders", framework, [*frameworks, "path"]))
        path = Path(name).expanduser()
        local = framework == "path" or name.startswith(("/", "./", "../", "~")) or path.is_dir()
        if local and not path.is_dir():
            raise ConfigError(f"encoder {text!r} names a folder that does not exist; give one with weights")
        if framework == "path":
            framework = _home(path, text)
            if framework not in frameworks:
                raise ConfigError(f"{path} holds a network of {framework}, which has no {modality} encoders")
        require_home(framework)
        return cls(framework, name, path if local else None, bool(random))


def require_home(framework: str) -> None:
    """Raises: ConfigError if the library is not installed."""
    if importlib.util.find_spec(framework) is None:
        package = _PACKAGES.get(framework, framework)
        raise ConfigError(f"encoders of {framework} need a package that is not installed; pip install {package}")


def _home(folder: Path, text: str) -> str:
    """The library that wrote a folder."""
    if (folder / "open_clip_config.json").is_file():
        return "open_clip"
    if not (folder / "config.json").is_file():
        raise ConfigError(f"encoder {text!r}: {folder} has neither config.json nor open_clip_config.json")
    try:
        stored = json.loads((folder / "config.json").read_text())
    except ValueError as error:
        raise ConfigError(f"encoder {text!r}: {folder / 'config.json'} is damaged: {error}") from error
    if "model_type" in stored:
        return "transformers"
    if "architecture" in stored:
        return "timm"
    raise ConfigError(f"encoder {text!r}: {folder / 'config.json'} is neither of transformers nor of timm")
