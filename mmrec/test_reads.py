"""One look at the test part in a study: what is chosen by looking twice is no longer a test."""

from __future__ import annotations

import json
from pathlib import Path

from mmrec.errors import DataError

__all__ = ["claim_test_read"]

_STUDY, _READ = "study.json", "test_read.json"


def claim_test_read(run: Path) -> None:
    """Note that the test part is read for a run; runs outside a study of `mmrec tune` are not concerned.

    The same trial may be evaluated again: it gives the same numbers, and nothing to choose from.

    Args:
        run: run folder or checkpoint folder; it need not exist any more.

    Raises: DataError if another trial of the same study has been evaluated on the test part.
    """
    run = run.resolve()
    study = next((folder for folder in run.parents if (folder / _STUDY).is_file()), None)
    if study is None:
        return
    trial = run.relative_to(study).parts[0]
    try:
        with (study / _READ).open("x") as file:
            file.write(json.dumps({"trial": trial}) + "\n")
    except FileExistsError:
        pass
    first = json.loads((study / _READ).read_text())["trial"]
    if first != trial:
        raise DataError(
            f"the test part was read for {first} of the study {study} already, and a second read would make it a part "
            f"to choose on; look at {trial} with --part valid (the study's trials.csv has all of them)"
        )
