"""Sharing a model: a checkpoint or an export goes to a folder, a URL or the Hugging Face hub, and comes back.

What is pushed is what inference needs: of a checkpoint all but ``training_state/``, of an export all. ``pushed.json``,
written last, lists every file with its size and sha256; pulling compares each with it, and the folder appears under its
name when all of them are whole.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mmrec.atomic_files import as_json, entry_of
from mmrec.data.progress import progress
from mmrec.errors import CheckpointError, ConfigError, DataError
from mmrec.export_folder import MANIFEST, UNFINISHED, ExportFolder
from mmrec.hub_card import CardSettings, read_results, shared_card
from mmrec.hub_places import PUSHED, Place, place_of
from mmrec.model import model_hash
from mmrec.training.checkpoint import FILES, file_hash, find_checkpoint, problem_of

__all__ = ["pull", "push"]

SCHEMA = "mmrec.pushed"
CARD = "README.md"


@dataclass(frozen=True, kw_only=True)
class _Parcel:
    """What is pushed.

    Attributes:
        kind: "checkpoint" or "export".
        model: folder of the inference part of the checkpoint.
        files: by path in the folder, where each lies.
        own_card: README.md that the folder has.
        listing: the folder's own list of files, with sizes and hashes, to be corrected for the new card.
    """

    kind: str
    model: Path
    files: dict[str, Path]
    own_card: str
    listing: dict[str, Any]


def push(
    path: Path,
    destination: str,
    *,
    results: Sequence[Path] = (),
    settings: CardSettings | None = None,
    public: bool = False,
) -> str:
    """Copy a checkpoint or export with its model card to ``destination``, replacing what was pushed there before.

    Args:
        path: export folder, checkpoint folder, or run folder (its best checkpoint).
        destination: a folder, a URL that fsspec knows, or hf://USER/NAME.
        results: folders of `mmrec evaluate` for the card.
        public: on the hub, whether everybody sees a repository that is new.

    Returns: where it lies now.

    Raises:
        DataError: if the folder is unfinished or damaged, results are of another model, the destination holds something
            else or does not answer.
        CheckpointError: if the checkpoint is damaged.
    """
    place = place_of(destination, public=public)
    parcel = _parcel(path)
    found = [read_results(folder, model_hash(parcel.model)) for folder in results]
    stored = json.loads((parcel.model / "config.json").read_text())
    encoders = list(stored["model"]["item_encoder"]["encoders"])
    card = shared_card(parcel.own_card, parcel.kind, encoders, found, settings or CardSettings())
    with tempfile.TemporaryDirectory() as temporary:
        files = parcel.files | _rewritten(parcel, card, Path(temporary))
        listed = {name: entry_of(file) for name, file in sorted(files.items())}
        total = sum(entry["bytes"] for entry in listed.values())
        pushed = {"schema": SCHEMA, "kind": parcel.kind, "files": listed}
        with progress(f"writing {place.name}", total, "bytes") as advance:
            place.write(files, as_json(pushed), lambda name: advance(listed[name]["bytes"]))
    return place.name


def pull(source: str, path: Path) -> str:
    """Copy what was pushed to ``source`` into the new folder ``path``, each file compared with its hash.

    An interrupted pull goes on with the same command.

    Returns: "checkpoint" or "export".

    Raises: DataError if nothing was pushed there, a file is missing or damaged, or ``path`` exists.
    """
    place = place_of(source)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise DataError(f"{path} exists already; give another folder, or remove it")
    pushed = _read_listing(place)
    arriving = path.with_name(f".{path.name}.pulling")
    arriving.mkdir(parents=True, exist_ok=True)
    total = sum(entry["bytes"] for entry in pushed["files"].values())
    with progress(f"reading {place.name}", total, "bytes") as advance:
        for name, entry in pushed["files"].items():
            target = arriving / name
            if not (target.is_file() and entry_of(target) == entry):
                target.parent.mkdir(parents=True, exist_ok=True)
                place.read(name, target)
                if entry_of(target) != entry:
                    target.unlink()
                    raise DataError(f"{place.name}/{name} is damaged: it is not what was pushed; push again")
            advance(entry["bytes"])
    for left in [file for file in arriving.rglob("*") if file.is_file()]:  # of a pull of something else
        if left.relative_to(arriving).as_posix() not in pushed["files"]:
            left.unlink()
    _check(arriving, pushed["kind"], place.name)
    if path.exists():
        path.rmdir()
    arriving.rename(path)
    return pushed["kind"]


def _parcel(path: Path) -> _Parcel:
    if (path / MANIFEST).is_file() or (path / UNFINISHED).is_dir():
        export = ExportFolder.open(path, verify=True)
        names = [name for name in (*export.files, MANIFEST) if name != CARD]
        own = path / CARD if (path / CARD).is_file() else path / "model" / CARD
        return _Parcel(
            kind="export", model=path / "model", files={name: path / name for name in names},
            own_card=own.read_text(encoding="utf-8"), listing=export.manifest,
        )  # fmt: skip
    folder = find_checkpoint(path)
    listing = {
        name: entry
        for name, entry in json.loads((folder / FILES).read_text()).items()
        if not name.startswith("training_state/")
    }
    return _Parcel(
        kind="checkpoint", model=folder, files={name: folder / name for name in listing if name != CARD},
        own_card=(folder / CARD).read_text(encoding="utf-8"), listing=listing,
    )  # fmt: skip


def _rewritten(parcel: _Parcel, card: str, temporary: Path) -> dict[str, Path]:
    """The new card, and the folder's own list of files with its size and hash in it."""
    path = temporary / CARD
    path.write_text(card, encoding="utf-8")
    if parcel.kind == "export":
        name, listing = MANIFEST, parcel.listing | {"files": parcel.listing["files"] | {CARD: entry_of(path)}}
    else:
        entry = {"bytes": path.stat().st_size, "xxh3": file_hash(path)}
        name, listing = FILES, parcel.listing | {CARD: entry}
    (temporary / name).write_text(as_json(listing), encoding="utf-8")
    return {CARD: path, name: temporary / name}


def _read_listing(place: Place) -> dict[str, Any]:
    text = place.listing()
    if text is None:
        raise DataError(f"{place.name} holds nothing that was pushed whole, it has no {PUSHED}; `mmrec push` writes it")
    try:
        pushed = json.loads(text)
        if pushed["schema"] != SCHEMA:
            raise ValueError(f"schema {pushed['schema']!r}")
        for name, entry in pushed["files"].items():
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise ValueError(f"a file named {name!r}")
            if not {"bytes", "sha256"} <= entry.keys():
                raise ValueError(f"no size and hash of {name}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{place.name}/{PUSHED} cannot be used ({error}); push again") from error
    return pushed


def _check(folder: Path, kind: str, name: str) -> None:
    """What was pulled opens as what it is."""
    if kind == "export":
        ExportFolder.open(folder)
    elif kind != "checkpoint":
        raise ConfigError(f"{name} holds {kind!r}, which this version of mmrec does not know")
    elif (problem := problem_of(folder, training_state=False)) is not None:
        raise CheckpointError(f"{name} is damaged: {problem}")
