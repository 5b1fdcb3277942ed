"""What the commands share: options that are needed before the others can be parsed, and where messages go."""

from __future__ import annotations

import logging
import os
import sys

from mmrec.errors import ConfigError

__all__ = ["log_to_stderr", "option", "print_once", "refuse_repeated", "without_option"]


# Options that say so in their help.
_REPEATABLE = ("--where",)


def refuse_repeated(argv: list[str]) -> None:
    """tyro would keep the last of two and drop the other without a word."""
    options = [argument.partition("=")[0] for argument in argv if argument.startswith("--")]
    options = [option for option in options if option not in _REPEATABLE]
    for option in options:
        if options.count(option) > 1:
            raise ConfigError(f"{option} is given {options.count(option)} times; give it once, all values behind it")


def log_to_stderr(debug: bool) -> None:
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr, force=True)
    logging.getLogger("mmrec").setLevel(logging.DEBUG if debug else logging.INFO)


def option(argv: list[str], name: str) -> str | None:
    """Value of an option that is needed before the others can be parsed."""
    for place, argument in enumerate(argv):
        if argument == name and place + 1 < len(argv):
            return argv[place + 1]
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
    return None


def without_option(argv: list[str], name: str) -> tuple[str | None, list[str]]:
    """Value of an option of ours, and the arguments that are left for tyro."""
    value = option(argv, name)
    if value is None:
        return None, argv
    place = next(n for n, argument in enumerate(argv) if argument.partition("=")[0] == name)
    return value, argv[:place] + argv[place + (1 if "=" in argv[place] else 2) :]


def print_once(line: str) -> None:
    if int(os.environ.get("RANK", "0")) == 0:
        print(line)
