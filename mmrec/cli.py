"""The command `mmrec`: from tables and media files to item embeddings that recommend.

Each command is a function; tyro makes its options from the signature and its help from the docstring. Heavy imports
stand inside the functions, so that help, errors and searches answer at once.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from mmrec.cli_check import check, print_dataset
from mmrec.cli_results import baselines, evaluate, explain, export, recommend, report, search
from mmrec.errors import ConfigError, MMRecError, unknown_name

if TYPE_CHECKING:
    from mmrec.training import TrainConfig

__all__ = ["main", "train_recipes"]

logger = logging.getLogger(__name__)

Positional = tyro.conf.Positional

OVERVIEW = """usage: mmrec COMMAND [OPTIONS]      (mmrec COMMAND --help tells the options)

Train recommenders on what items look, read, sound and move like.

  demo        make a small world of media and run the whole job on it
  ingest      tables and media files -> a dataset folder
  check       verify a dataset folder in full, print and draw (--html) what is in it
  train       a dataset folder -> a checkpoint      mmrec train hybrid --data DATASET
  refit       train again with the validation events, for the epochs that they chose
  evaluate    a checkpoint or an export -> metrics.json, per-user ranks, report.html
  baselines   untrained and counting methods on the same split
  export      a checkpoint -> item embeddings (Parquet, manifest, index)
  explain     which modality made an item's vector
  search      items nearest to an item, a text or a media file
  recommend   items for a user or for a list of items
  report      metrics.json -> report.html

--debug shows the traceback of an error.
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command; return its exit code: 0, or 2 with one line on standard error that says what to do."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        code = _run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of our output, such as `head`, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(argv: list[str]) -> int:
    debug = "--debug" in argv
    argv = [argument for argument in argv if argument != "--debug"]
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(OVERVIEW)
        return 0
    _log_to_stderr(debug)
    try:
        if argv[0] not in COMMANDS:
            raise ConfigError(unknown_name("command", argv[0], COMMANDS))
        _refuse_repeated(argv)
        return COMMANDS[argv[0]](argv[1:]) or 0
    except MMRecError as error:
        if debug:
            raise
        print(f"mmrec {argv[0]}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"mmrec {argv[0]}: interrupted", file=sys.stderr)
        return 130


def _refuse_repeated(argv: list[str]) -> None:
    """tyro would keep the last of two and drop the other without a word."""
    options = [argument.partition("=")[0] for argument in argv if argument.startswith("--")]
    for option in options:
        if options.count(option) > 1:
            raise ConfigError(f"{option} is given {options.count(option)} times; give it once, all values behind it")


def _log_to_stderr(debug: bool) -> None:
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr, force=True)
    logging.getLogger("mmrec").setLevel(logging.DEBUG if debug else logging.INFO)


def _parse(function: Callable[..., Any], argv: list[str]) -> Any:
    about = (function.__doc__ or "").split("Args:")[0].strip()  # tyro shows the arguments' lines beside the options
    return tyro.cli(function, args=argv, prog=f"mmrec {function.__name__}", description=about)


def _command(function: Callable[..., Any]) -> Callable[[list[str]], int]:
    return lambda argv: _parse(function, argv)


def demo(out: Path | None = None, seed: int = 0) -> int:
    """Make a small world of images, texts, sounds and clips, and run the whole job on it (a few minutes).

    Args:
        out: folder for everything that the demo writes; must not exist. The default is demo, or demo-2, demo-3, ...
        seed: decides the world and the training.
    """
    from mmrec.demo import run_demo

    return run_demo(out, main, seed=seed)


def _ingest(argv: list[str]) -> int:
    from mmrec.data.ingest import IngestConfig, ingest

    config = tyro.cli(IngestConfig, args=argv, prog="mmrec ingest")
    ingest(config)
    print_dataset(config.out)
    return 0


def _train(argv: list[str]) -> int:
    """`mmrec train PRESET --data DATASET [--out RUN] [overrides]`: the defaults of the overrides depend on the data."""
    from mmrec.fusion import FUSIONS
    from mmrec.training.presets import PRESETS, preset
    from mmrec.user_encoders import USER_ENCODERS

    lines = "\n".join(f"  {name:10s}{what}" for name, what in PRESETS.items())
    usage = (
        "usage: mmrec train PRESET --data DATASET [--out RUN] [--dry-run] [--user-encoder NAME] [--fusion NAME]\n"
        "                   [--{image,text,audio,video}-encoder NAME] [--{image,...}-tune HOW] [overrides]\n\n"
        f"presets (settings follow from the size and density of the data):\n{lines}\n\n"
        f"user encoders: {', '.join(USER_ENCODERS)}; fusions: {', '.join(FUSIONS)}\n\n"
        "encoders: small networks that learn from scratch, or foundation encoders by FRAMEWORK:NAME, with their own\n"
        "preprocessing: timm:vit_base_patch16_dinov3.lvd1689m, open_clip:ViT-B-32/laion2b_s34b_b79k,\n"
        "transformers:answerdotai/ModernBERT-base, transformers:/folder, path:/folder, torchvision:mvit_v2_s.\n"
        "They tune: frozen (encoded once, kept in DATASET/features/cache), top:K (blocks), lora:RANK, all.\n\n"
        "mmrec train PRESET --data DATASET --help lists every setting with its value for this data; --dry-run prints\n"
        "the settings, parameters, steps and memory of a run and does not begin it."
    )
    if not argv or argv[0] in ("-h", "--help"):
        print(usage)
        return 0
    data = _option(argv, "--data")
    if data is None:
        raise ConfigError("no --data given; it must be a dataset folder made by `mmrec ingest`")
    split = _option(argv, "--split") or "auto"
    given = _option(argv, "--split-quantile") or "0.9"
    try:
        quantile = float(given)
    except ValueError as error:
        raise ConfigError(f"--split-quantile is {given!r}; give a number between 0 and 1") from error
    dry_run, given_options = "--dry-run" in argv, [word for word in argv[1:] if word != "--dry-run"]
    encoder, overrides = _without_option(given_options, "--user-encoder")
    fusion, overrides = _without_option(overrides, "--fusion")
    encoders, overrides = _foundation_encoders(overrides)
    defaults = preset(
        argv[0],
        Path(data),
        split=split,  # pyright: ignore[reportArgumentType]
        split_quantile=quantile,
        user_encoder=encoder,
        fusion=fusion,
        encoders=encoders,
    )
    return _begin(_overridden(defaults, overrides, f"mmrec train {argv[0]}"), dry_run)


def _foundation_encoders(argv: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Encoders given by name, and the arguments that are left."""
    from mmrec.modality_encoders.foundation import FOUNDATION_ENCODERS

    encoders: dict[str, Any] = {}
    for modality, config in FOUNDATION_ENCODERS.items():
        name, argv = _without_option(argv, f"--{modality}-encoder")
        tune, argv = _without_option(argv, f"--{modality}-tune")
        if tune is not None and name is None:
            raise ConfigError(f"--{modality}-tune is for foundation encoders; give --{modality}-encoder too")
        if name is not None:
            encoders[modality] = config(encoder=name, tune=tune or "frozen")
    return encoders, argv


def refit(run: Positional[Path], out: Path) -> int:
    """Train a finished run again with the validation events, for the epochs that it chose on them.

    Another protocol: its numbers, and those of the baselines beside them, which are refit too, are marked so.

    Args:
        run: run folder of `mmrec train`, finished.
        out: run folder of the refit.
    """
    from mmrec.training.refit import refit_config
    from mmrec.training.trainer import train

    return _report_run(train(refit_config(run, out)))


def _overridden(defaults: TrainConfig, argv: list[str], prog: str) -> TrainConfig:
    """The configuration with what the command line changes; which encoders it has is not among that."""
    return tyro.cli(type(defaults), args=argv, default=defaults, prog=prog, config=(tyro.conf.AvoidSubcommands,))


def _begin(config: TrainConfig, dry_run: bool) -> int:
    """Train, or only say what would be trained."""
    if dry_run:
        from mmrec.training.plan import print_plan

        print_plan(config)
        return 0
    from mmrec.training.trainer import train

    return _report_run(train(config))


def _report_run(run: Path) -> int:
    """Say how a run ended; 143, the code of a process ended by SIGTERM, if it was stopped before its end."""
    if (run / "finished.json").exists():
        _print_once(f"trained: {run}")
        return 0
    _print_once(f"stopped and saved: {run}  (the same command goes on)")
    return 143


def _option(argv: list[str], name: str) -> str | None:
    """Value of an option that is needed before the others can be parsed."""
    for place, argument in enumerate(argv):
        if argument == name and place + 1 < len(argv):
            return argv[place + 1]
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
    return None


def _without_option(argv: list[str], name: str) -> tuple[str | None, list[str]]:
    """Value of an option of ours, and the arguments that are left for tyro."""
    value = _option(argv, name)
    if value is None:
        return None, argv
    place = next(n for n, argument in enumerate(argv) if argument.partition("=")[0] == name)
    return value, argv[:place] + argv[place + (1 if "=" in argv[place] else 2) :]


def _print_once(line: str) -> None:
    if int(os.environ.get("RANK", "0")) == 0:
        print(line)


def train_recipes(*recipes: Callable[[], Any]) -> None:
    """Command line of a recipe file: `accelerate launch -m train.<dataset> RECIPE [overrides]`."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    _log_to_stderr(False)
    by_name = {recipe.__name__: recipe for recipe in recipes}
    argv = sys.argv[1:]
    try:
        if not argv or argv[0] not in by_name:
            given = argv[0] if argv else "(none)"
            raise ConfigError(unknown_name("recipe", given, by_name))
        _refuse_repeated(argv)
        defaults = by_name[argv[0]]()
        overrides = [word for word in argv[1:] if word != "--dry-run"]
        sys.exit(_begin(_overridden(defaults, overrides, argv[0]), "--dry-run" in argv))
    except MMRecError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "demo": _command(demo),
    "ingest": _ingest,
    "check": _command(check),
    "train": _train,
    "refit": _command(refit),
    "evaluate": _command(evaluate),
    "baselines": _command(baselines),
    "export": _command(export),
    "explain": _command(explain),
    "search": _command(search),
    "recommend": _command(recommend),
    "report": _command(report),
}
