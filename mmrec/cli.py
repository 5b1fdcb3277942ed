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

from mmrec.cli_arguments import log_to_stderr, refuse_repeated
from mmrec.cli_check import check, print_dataset
from mmrec.cli_compare import compare, drift, report
from mmrec.cli_explore import explore
from mmrec.cli_export import export
from mmrec.cli_hub import pull, push
from mmrec.cli_index import index
from mmrec.cli_results import baselines, evaluate, explain
from mmrec.cli_search import recommend, search
from mmrec.cli_serve import serve
from mmrec.cli_train import refit, train_preset, tune_preset
from mmrec.errors import ConfigError, MMRecError, unknown_name

if TYPE_CHECKING:
    pass

__all__ = ["main"]

logger = logging.getLogger(__name__)

Positional = tyro.conf.Positional

OVERVIEW = """usage: mmrec COMMAND [OPTIONS]      (mmrec COMMAND --help tells the options)

Train recommenders on what items look, read, sound and move like.

  demo        make a small world of media and run the whole job on it
  ingest      tables and media files -> a dataset folder
  check       verify a dataset folder in full, print and draw (--html) what is in it
  train       a dataset folder -> a checkpoint      mmrec train hybrid --data DATASET
  refit       train again with the validation events, for the steps that they chose
  tune        search for settings on the validation part (mmrec tune PRESET --data DATASET --out STUDY)
  evaluate    a checkpoint or an export -> metrics.json, per-user ranks, report.html
  baselines   untrained and counting methods on the same split
  compare     results folders beside each other, with paired tests
  drift       what changed between two exports, datasets, periods or evaluations
  export      a checkpoint -> item embeddings (Parquet, manifest, index)
  index       an export -> its index built again, updated, or without some items
  explain     which modality made an item's vector
  search      items nearest to an item, a text or a media file
  recommend   items for a user or for a list of items
  serve       these and more over HTTP
  explore     the same on a page in the browser
  report      metrics.json -> report.html
  push        share a checkpoint or an export: a folder, a URL, the Hugging Face hub
  pull        fetch what was pushed

--debug shows the traceback of an error.
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command; return its exit code: 0, or 2 with one line on standard error that says what to do."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] not in ("pull", "push"):  # which are asked for to go there
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        code = _run(argv)
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
    log_to_stderr(debug)
    try:
        if argv[0] not in COMMANDS:
            raise ConfigError(unknown_name("command", argv[0], COMMANDS))
        refuse_repeated(argv)
        return COMMANDS[argv[0]](argv[1:]) or 0
    except MMRecError as error:
        if debug:
            raise
        print(f"mmrec {argv[0]}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"mmrec {argv[0]}: interrupted", file=sys.stderr)
        return 130


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


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "demo": _command(demo),
    "ingest": _ingest,
    "check": _command(check),
    "train": train_preset,
    "refit": _command(refit),
    "tune": tune_preset,
    "evaluate": _command(evaluate),
    "baselines": _command(baselines),
    "compare": _command(compare),
    "drift": _command(drift),
    "export": _command(export),
    "index": _command(index),
    "explain": _command(explain),
    "search": _command(search),
    "recommend": _command(recommend),
    "serve": _command(serve),
    "explore": _command(explore),
    "report": _command(report),
    "push": _command(push),
    "pull": _command(pull),
}
