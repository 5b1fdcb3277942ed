"""The commands that train: train, tune and refit of presets, and the same of recipe files."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from mmrec.cli_arguments import log_to_stderr, option, print_once, refuse_repeated, without_option
from mmrec.errors import ConfigError, MMRecError, unknown_name

if TYPE_CHECKING:
    from mmrec.training import TrainConfig

__all__ = ["refit", "train_preset", "train_recipes", "tune_preset"]

Positional = tyro.conf.Positional


def train_preset(argv: list[str]) -> int:
    """`mmrec train PRESET --data DATASET [--out RUN] [overrides]`: the defaults of the overrides depend on the data."""
    dry_run, argv = "--dry-run" in argv, [word for word in argv if word != "--dry-run"]
    if not argv or argv[0] in ("-h", "--help"):
        print(_preset_usage("train", "[--out RUN] [--dry-run]"))
        print(
            "\nmmrec train PRESET --data DATASET --help lists every setting with its value for this data;\n"
            "--dry-run prints the settings, parameters, steps and memory of a run and does not begin it."
        )
        return 0
    return _begin(_preset_config("train", argv), dry_run)


def tune_preset(argv: list[str]) -> int:
    """`mmrec tune PRESET --data DATASET --out STUDY [--trials N] [--search NAME=RANGE ...] [overrides]`."""
    if not argv or argv[0] in ("-h", "--help"):
        print(_preset_usage("tune", "--out STUDY [--trials 20] [--search NAME=RANGE[;NAME=RANGE...]]"))
        print(
            "\nSearches for settings by Optuna: the first trial has the preset's own, bad ones end early, the\n"
            "validation part alone decides, and the same command goes on where it was. RANGE is a,b,c (choices),\n"
            "low:high, log:low:high or int:low:high, NAME a setting of mmrec train:\n"
            "    --search 'learning_rate=log:3e-4:3e-3;model.user_encoder.num_blocks=1,2'\n"
            "Without --search: rate, temperature, dropouts and blocks. Overrides hold for every trial."
        )
        return 0
    trials, argv = without_option(argv, "--trials")
    search, argv = without_option(argv, "--search")
    out, argv = without_option(argv, "--out")
    if out is None:
        raise ConfigError("no --out given; it must be a folder for the study")
    return _search(_preset_config("tune", argv), Path(out), trials, search)


def _search(config: TrainConfig, out: Path, trials: str | None, search: str | None) -> int:
    from rich.console import Console

    from mmrec.training.tuning import Study, default_space, parse_range, trials_table

    if trials is not None and not trials.isdecimal():
        raise ConfigError(f"--trials is {trials!r}; give a whole number")
    space = dict(map(parse_range, search.split(";"))) if search else default_space(config)
    study = Study(config, space, out, seed=config.seed)
    study.run(int(trials or 20))
    records = study.results()
    if records:
        Console().print(trials_table(records))
        best = out / records[0]["run"]
        print_once(f"all trials: {out / 'trials.csv'}; evaluate the best one, once: mmrec evaluate {best} ...")
    return 0


def _preset_usage(command: str, options: str) -> str:
    from mmrec.fusion import FUSIONS
    from mmrec.training.presets import PRESETS
    from mmrec.user_encoders import USER_ENCODERS

    lines = "\n".join(f"  {name:10s}{what}" for name, what in PRESETS.items())
    return (
        f"usage: mmrec {command} PRESET --data DATASET {options}\n"
        "                   [--user-encoder NAME] [--fusion NAME] [--start-from RUN]\n"
        "                   [--{image,text,audio,video}-encoder NAME] [--{image,...}-tune HOW] [overrides]\n\n"
        f"presets (settings follow from the size and density of the data):\n{lines}\n\n"
        f"user encoders: {', '.join(USER_ENCODERS)}; fusions: {', '.join(FUSIONS)}\n\n"
        "encoders: small networks that learn from scratch, or foundation encoders by FRAMEWORK:NAME, with their own\n"
        "preprocessing: timm:vit_base_patch16_dinov3.lvd1689m, open_clip:ViT-B-32/laion2b_s34b_b79k,\n"
        "transformers:answerdotai/ModernBERT-base, transformers:/folder, path:/folder, torchvision:mvit_v2_s.\n"
        "They tune: frozen (encoded once, kept in DATASET/features/cache), top:K (blocks), lora:RANK, all.\n\n"
        "--start-from: a run on another dataset; its content encoders, fusion and user encoder go on here, ids are new."
    )


def _preset_config(command: str, argv: list[str]) -> TrainConfig:
    """The preset that the arguments name, for the data that they name, with what they change."""
    from mmrec.data.dataset import Dataset
    from mmrec.training.checkpoint import find_checkpoint
    from mmrec.training.presets import preset
    from mmrec.training.transfer import start_from

    data = option(argv, "--data")
    if data is None:
        raise ConfigError("no --data given; it must be a dataset folder made by `mmrec ingest`")
    split = option(argv, "--split") or "auto"
    given = option(argv, "--split-quantile") or "0.9"
    try:
        quantile = float(given)
    except ValueError as error:
        raise ConfigError(f"--split-quantile is {given!r}; give a number between 0 and 1") from error
    encoder, overrides = without_option(argv[1:], "--user-encoder")
    fusion, overrides = without_option(overrides, "--fusion")
    source, overrides = without_option(overrides, "--start-from")
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
    if source is not None:
        if encoder or fusion or encoders:
            raise ConfigError(
                "--start-from brings encoders and fusion with it; leave out the options that choose others"
            )
        defaults = start_from(defaults, find_checkpoint(Path(source)), Dataset.open(Path(data)))
    return _overridden(defaults, overrides, f"mmrec {command} {argv[0]}")


def _foundation_encoders(argv: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Encoders given by name, and the arguments that are left."""
    from mmrec.modality_encoders.foundation import FOUNDATION_ENCODERS

    encoders: dict[str, Any] = {}
    for modality, config in FOUNDATION_ENCODERS.items():
        name, argv = without_option(argv, f"--{modality}-encoder")
        tune, argv = without_option(argv, f"--{modality}-tune")
        if tune is not None and name is None:
            raise ConfigError(f"--{modality}-tune is for foundation encoders; give --{modality}-encoder too")
        if name is not None:
            encoders[modality] = config(encoder=name, tune=tune or "frozen")
    return encoders, argv


def refit(run: Positional[Path], out: Path) -> int:
    """Train a finished run again with the validation events, for the steps that it chose on them.

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
        print_once(f"trained: {run}")
        return 0
    print_once(f"stopped and saved: {run}  (the same command goes on)")
    return 143


def train_recipes(*recipes: Callable[[], Any]) -> None:
    """Command line of a recipe file: `accelerate launch -m train.<dataset> RECIPE [overrides]`.

    With --dry-run it says what would be trained; with --tune N [--search ...] --out STUDY it searches from there.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    log_to_stderr(False)
    by_name = {recipe.__name__: recipe for recipe in recipes}
    argv = sys.argv[1:]
    try:
        if not argv or argv[0] not in by_name:
            given = argv[0] if argv else "(none)"
            raise ConfigError(unknown_name("recipe", given, by_name))
        refuse_repeated(argv)
        defaults = by_name[argv[0]]()
        dry_run, overrides = "--dry-run" in argv, [word for word in argv[1:] if word != "--dry-run"]
        trials, overrides = without_option(overrides, "--tune")
        search, overrides = without_option(overrides, "--search")
        config = _overridden(defaults, overrides, argv[0])
        if trials is None:
            sys.exit(_begin(config, dry_run))
        if config.out is None:
            raise ConfigError("no --out given; it must be a folder for the study")
        sys.exit(_search(config, config.out, trials, search))
    except MMRecError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
