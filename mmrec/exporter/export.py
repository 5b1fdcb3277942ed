"""Writes an export folder; its format stands in ``mmrec/exporter/__init__.py``."""

from __future__ import annotations

import functools
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mmrec.atomic_files import write_parquet
from mmrec.data.dataset import Dataset
from mmrec.data.leases import Leases
from mmrec.data.store import url_of
from mmrec.errors import CheckpointError, ConfigError, DataError
from mmrec.export_folder import (
    SCHEMA,
    SCHEMA_VERSION,
    ExportFolder,
    encoding_of,
    format_of,
    read_manifest,
)
from mmrec.exporter.item_table import item_table
from mmrec.exporter.parts import ItemParts, is_intact, part_name, part_number
from mmrec.exporter.previous import Previous
from mmrec.exporter.recall import recall_at_10
from mmrec.exporter.units import May, Units
from mmrec.exporter.use import UserSide, model_card
from mmrec.exporter.users import EncodeUsers, UserParts
from mmrec.exporter.workplace import Workplace
from mmrec.index.build import IndexConfig, finish_index

__all__ = ["ExportReport", "Making", "begin_export", "export"]

logger = logging.getLogger(__name__)

_MAX_MODALITIES = 31  # the bits of a non-negative int32


@dataclass(frozen=True)
class ExportReport:
    """What an export did.

    Attributes:
        encoded: items that this process encoded.
        copied: items that it copied from ``since``.
        already_there: items that others have done, or that were there before.
        gone: items of ``since`` that are no more.
    """

    path: Path
    num_items: int
    dim: int
    encoded: int
    copied: int
    already_there: int
    gone: int


def begin_export(
    encode_items: Callable[[np.ndarray], np.ndarray],
    dataset: Dataset,
    out: Path,
    *,
    checkpoint: Path,
    model_hash: str,
    presence: np.ndarray,
    modalities: tuple[str, ...],
    shares: np.ndarray | None = None,
    user_side: UserSide | None = None,
    cut: int | None = None,
    dtype: str = "float32",
    form: str = "parquet",
    extras: Callable[[], Mapping[str, Callable[[Path], object]]] = dict,
    encode_users: EncodeUsers | None = None,
    users: bool = False,
    index: IndexConfig | None = None,
    since: Path | str | None = None,
    shard_items: int = 8192,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Making:
    """Begin, or join, writing the vectors of all items of ``dataset`` to the export folder ``out``.

    Processes that are given the same at the same time share the parts, on any machines that see the folder; none waits
    for another but for the last parts, and one that dies costs what it was writing. An unfinished export of the same
    goes on, also with ``overwrite``. A finished one is checked, and its damaged or missing files are restored.

    Args:
        encode_items: item indices (n,) -> vectors float32 (n, D); called once a part.
        checkpoint: folder whose inference part is copied to ``out/model``.
        model_hash: names the model; equal hashes mean equal vectors.
        presence: which modalities the model sees of each item. bool (V, M). ``encode_items`` may clear an entry when it
            finds a medium unreadable; the bitmask tells what went into the vector.
        modalities: names of the columns of ``presence``.
        shares: of each item's fusion weights those of its modalities, which ``encode_items`` fills in; None: left out.
            float16 (V, M)
        user_side: what makes user vectors of these; None: the vectors are of items alone.
        cut: width to which ``encode_items`` cuts the model's vectors; None: they are whole.
        dtype: float32, float16, int8 or binary.
        form: parquet, npy, safetensors or lance.
        extras: gives further files of ``out/model``, by their paths in it, and what writes each; called when all items
            are encoded, by one process.
        encode_users: item vectors (V, D) and histories -> vectors of users, float32 (n, D).
        users: also write vectors of users; False keeps those that there are.
        index: also build an index; None keeps the one that there is.
        since: earlier export; vectors of items that have not changed since are copied from it bit for bit.
        shard_items: items a part.
        overwrite: replace a finished export, or one of another model or dataset.
        progress: called with the number of items done after each part.

    Raises:
        ConfigError: if ``shard_items`` is less than 1, dtype or form is unknown, or there is nothing that makes users.
        DataError: if ``out`` holds something else or cannot be written, ``since`` cannot be read, or vectors are not
            finite or too few.
        CheckpointError: if ``checkpoint`` is none.
    """
    if shard_items < 1:
        raise ConfigError(f"shard_items is {shard_items}; it must be at least 1")
    encoding, files = encoding_of(dtype), format_of(form)
    if not (checkpoint / "config.json").is_file():
        raise CheckpointError(f"{checkpoint} is no checkpoint: config.json is missing")
    if since is not None and url_of(since) is None and Path(since).resolve() == out.resolve():
        raise DataError(f"--since and --out are the same folder {out}; export to a new one")
    if users and encode_users is None:
        raise ConfigError("this model makes no vectors of users; export without --users")
    _check_presence(presence, modalities, dataset.num_items)
    previous = (
        None if since is None else Previous.open(since, model_hash, cut, encoding, with_shares=shares is not None)
    )
    identity = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "model_hash": model_hash,
        "dataset": {"name": dataset.name, "fingerprint": dataset.fingerprint},
        "num_items": dataset.num_items,
        "shard_items": shard_items,
        "modalities": list(modalities),
        "cut": cut,
        "dtype": dtype,
        "format": form,
    }
    work = Workplace(out, identity)
    work.begin(overwrite=overwrite)
    return Making(
        work=work,
        dataset=dataset,
        parts=ItemParts(encode_items, dataset, presence, shares, encoding, files, previous),
        encode_users=encode_users,
        users=users,
        previous=previous,
        checkpoint=checkpoint,
        user_side=user_side,
        extras=extras,
        index=index,
        progress=progress,
    )


def export(*arguments: Any, **options: Any) -> ExportReport:
    """Write the vectors of all items of a dataset to an export folder: :func:`begin_export`, then all of the work."""
    return begin_export(*arguments, **options).run()


def _check_presence(presence: np.ndarray, modalities: tuple[str, ...], num_items: int) -> None:
    if len(modalities) > _MAX_MODALITIES:
        raise DataError(f"the model has {len(modalities)} modalities; an export takes at most {_MAX_MODALITIES}")
    assert presence.shape == (num_items, len(modalities)), "presence has a row an item and a column a modality"


@dataclass(kw_only=True)
class Making:
    """What this process does of an export that has begun; made by :func:`begin_export`."""

    work: Workplace
    dataset: Dataset
    parts: ItemParts
    encode_users: EncodeUsers | None
    users: bool
    previous: Previous | None
    checkpoint: Path
    user_side: UserSide | None
    extras: Callable[[], Mapping[str, Callable[[Path], object]]]
    index: IndexConfig | None
    progress: Callable[[int], None] | None

    def run(self, elsewhere: Callable[[list[str]], Iterator[str]] | None = None) -> ExportReport:
        """Do what others do not do, and finish the export, or see that it is finished.

        Args:
            elsewhere: has units done by processes that it starts, and gives each that is done.
        """
        out, num_items, sent = self.work.out, self.dataset.num_items, {}
        with Leases(self.work.leases) as leases:
            units = Units(self.work, leases)
            for unit in () if elsewhere is None else elsewhere(self.part_units):
                sent[unit] = self.work.entry(unit) or {}
            units.do(self.part_units, self._write_part, self._count)
            if self.user_units:  # from the vectors of all items
                self._restore(units, self.part_units)
                for _ in () if elsewhere is None else elsewhere(self.user_units):
                    pass
                units.do(self.user_units, self._write_users)
            units.finish(functools.partial(self._finish, units))
        entries = [*units.mine.values(), *sent.values()]
        manifest = read_manifest(out)
        if any(manifest.get(key) != value for key, value in self.work.identity.items()):
            raise DataError(f"{out} was replaced by another export while it was written; give each its own --out")
        if (self.users and manifest["users"] is None) or (self.index is not None and "index" not in manifest):
            raise DataError(f"{out} was finished by a process that was asked for less; run this command again")
        encoded, copied = (sum(entry.get(what, 0) for entry in entries) for what in ("encoded", "copied"))
        item_ids = self.dataset.attributes["item_id"]
        gone = 0 if self.previous is None else self.previous.gone(item_ids)
        rest = num_items - encoded - copied
        logger.info("%s: %s items encoded, %s copied, %s already there, %s gone", out, encoded, copied, rest, gone)
        return ExportReport(out, num_items, manifest["dim"], encoded, copied, rest, gone)

    def do(self, unit: str, token: str) -> None:
        """Do one unit for the process whose token this is, or wait until another one has."""
        with Leases(self.work.leases, token=token) as leases:
            write = self._write_part if unit in self.part_units else self._write_users
            Units(self.work, leases).do([unit], write)

    @functools.cached_property
    def part_units(self) -> list[str]:
        return [part_name(number) for number in range(-(-self.dataset.num_items // self._shard_items))]

    @functools.cached_property
    def user_units(self) -> list[str]:
        if not self.users and not (self.work.former() or {}).get("users"):
            return []
        if self.encode_users is None:
            raise ConfigError(f"{self.work.out} has vectors of users, and this model makes none; give another --out")
        return [f"users-{number:05d}" for number in range(-(-self.dataset.num_users // self._shard_items))]

    @property
    def _shard_items(self) -> int:
        return self.work.identity["shard_items"]

    @functools.cached_property
    def _former(self) -> dict[str, dict[str, Any]]:
        """Parts of the same export, finished before, by their files."""
        former = self.work.former()
        if former is None:
            return {}
        parts = [*former["parts"], *(former["users"] or {"parts": []})["parts"]]
        return {part["file"]: {"part": part, "dim": former["dim"]} for part in parts}

    def _items_of(self, unit: str) -> np.ndarray:
        start = part_number(unit) * self._shard_items
        return np.arange(start, min(start + self._shard_items, self.dataset.num_items))

    def _count(self, unit: str) -> None:
        if self.progress:
            self.progress(len(self._items_of(unit)))

    def _write_part(self, unit: str, may: May) -> dict[str, Any]:
        number = part_number(unit)
        former = self._former.get(self.parts.file(number))
        if former is not None and is_intact(self.work, former["part"]):
            return former | {"encoded": 0, "copied": 0}
        return self.parts.write(self.work, number, self._items_of(unit), may)

    def _write_users(self, unit: str, may: May) -> dict[str, Any]:
        number = int(unit.removeprefix("users-"))
        name = f"users/part-{number:05d}.parquet"
        former = self._former.get(name)
        if former is not None and is_intact(self.work, former["part"]):
            return former
        users = np.arange(number * self._shard_items, min((number + 1) * self._shard_items, self.dataset.num_users))
        return self._user_parts.write(self.work, name, users, may)

    @functools.cached_property
    def _user_parts(self) -> UserParts:
        assert self.encode_users is not None
        items = functools.cache(lambda: ExportFolder(self.work.out, self._of_parts()).vectors)
        return UserParts(self.encode_users, self.dataset, self.parts.encoding, items)

    def _restore(self, units: Units, names: list[str]) -> bool:
        """Write parts again that others have written and that proved damaged; whether there were any."""
        damaged = units.damaged(names)
        units.do(damaged, self._write_part if names is self.part_units else self._write_users)
        return bool(damaged)

    def _of_parts(self) -> dict[str, Any]:
        """As much of the manifest as the parts of the items tell."""
        entries = [self.work.entry(unit) or {} for unit in self.part_units]
        return self.work.identity | {
            "dim": entries[0]["dim"],
            "parts": [entry["part"] for entry in entries],
            "users": None,
            "files": {},
        }

    def _finish(self, units: Units, may: May) -> bool:
        """Write all but the parts, the manifest last; False if parts proved damaged, and were written again."""
        if self._restore(units, self.part_units) or self._restore(units, self.user_units):
            return False
        manifest = self._of_parts()
        manifest |= {
            "decode": self.parts.encoding.says,
            "recall_at_10": self._recall(),
            "normalised": all(part["normalised"] for part in manifest["parts"]),
            "metric": "inner_product",
            "user_side": None if self.user_side is None else self.user_side.to_json(),
        }
        if self.user_units:
            parts = [(self.work.entry(unit) or {})["part"] for unit in self.user_units]
            manifest["users"] = {"num_users": self.dataset.num_users, "parts": parts}
        written = ExportFolder(self.work.out, manifest)
        if self.parts.form.finish is not None:
            self.parts.form.finish(self.work.out / "embeddings", [part["rows"] for part in manifest["parts"]])
        items = item_table(self.dataset)
        for place, name in enumerate(self.parts.columns_of_items, start=2):
            items = items.add_column(place, name, written.part_column(name))
        files: dict[str, Any] = {"items.parquet": self._write_table(items, "items.parquet")} | self._copy_model()
        for extra, write in self.extras().items():
            files[f"model/{extra}"] = self.work.commit(f"model/{extra}", write)
        card = model_card(manifest, self.dataset)
        files["README.md"] = self.work.commit("README.md", lambda path: path.write_text(card, encoding="utf-8"))
        manifest["files"] |= files
        try:
            finish_index(written, self.work.former(), self.index)
        except OSError as error:
            raise self.work.cannot_write(error) from error
        self.work.finish(manifest, may)
        return True

    def _recall(self) -> dict[str, Any] | None:
        """Of what is stored, against float32; of parts that were only copied what their export said."""
        if self.parts.encoding.name == "float32":
            return None
        samples = [self.work.sample(unit) for unit in self.part_units]
        kept = [sample for sample in samples if sample is not None]
        if len(kept) == len(samples) and (exact := np.concatenate(kept, axis=1))[0].size and np.isfinite(exact).all():
            return recall_at_10(exact[0], exact[1])
        former = self.work.former()
        if former is not None:
            return former["recall_at_10"]
        said = None if self.previous is None else self.previous.recall
        return None if said is None else said | {"carried_over": True}

    def _copy_model(self) -> dict[str, dict[str, Any]]:
        files = {}
        for path in sorted(self.checkpoint.rglob("*")):
            relative = path.relative_to(self.checkpoint)
            if path.is_file() and relative.parts[0] != "training_state":
                name = f"model/{relative.as_posix()}"
                files[name] = self.work.commit(name, lambda scratch, path=path: shutil.copyfile(path, scratch))
        return files

    def _write_table(self, table: pa.Table, name: str) -> dict[str, Any]:
        return self.work.commit(name, lambda path: write_parquet(path, table))
