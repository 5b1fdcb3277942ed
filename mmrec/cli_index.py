"""The command that indexes an export, and takes items out of its answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from mmrec.errors import ConfigError

if TYPE_CHECKING:
    from mmrec.export_folder import ExportFolder

__all__ = ["index"]

Positional = tyro.conf.Positional


def index(
    export: Positional[Path],
    kind: Literal["auto", "exact", "ivf", "hnsw", "sq8"] | None = None,
    recall: float | None = None,
    memory_gb: float | None = None,
    update_from: Path | None = None,
    remove: Path | None = None,
    restore: Path | None = None,
) -> None:
    """Build the index of an export again, take it over from an earlier export, or remove items from the answers.

    Args:
        export: folder made by `mmrec export`.
        kind: exact; ivf (lists around k-means centres); hnsw (a graph); sq8 (8 bits a number in memory); auto, the
            default: exact up to 50 million numbers, then ivf, or sq8 where memory is short.
        recall: share of the exact answer's ten first that is to be found, by default .98; measured when it is built.
        memory_gb: most that the index may take in memory, 10^9 bytes.
        update_from: earlier export of the same model: its index is kept, only what changed is added.
        remove: text file with one item id a line; no answer has them from now on.
        restore: text file with one item id a line; they may be answers again.
    """
    from mmrec.export_folder import ExportFolder
    from mmrec.index.build import IndexConfig, rebuild
    from mmrec.index.removed import change_removed, read_ids
    from mmrec.index.update import update_index

    settings = {"kind": kind, "recall": recall, "memory_gb": memory_gb}
    given = {name: value for name, value in settings.items() if value is not None}
    changes = [
        name for name, value in (("update-from", update_from), ("remove", remove), ("restore", restore)) if value
    ]
    if len(changes) > 1 or (changes and given):
        others = ", ".join(f"--{name.replace('_', '-')}" for name in [*changes[1:], *given])
        raise ConfigError(f"--{changes[0]} does one thing alone; give {others} in a command of its own")
    if remove or restore:
        ids = read_ids(remove or restore)  # pyright: ignore[reportArgumentType]
        gone = change_removed(export, ids, remove=remove is not None)
        print(f"{'removed' if remove else 'restored'}: {len(set(ids)):,} items; {gone:,} are in no answer of {export}")
    elif update_from:
        done = update_index(export, update_from)
        how = "built anew" if done.anew else "kept"
        print(f"{how}: {done.kept:,} items as they were, {done.added:,} new or changed, {done.dropped:,} gone")
        _print_index(ExportFolder.open(export))
    else:
        _print_index(rebuild(export, IndexConfig(**given)))


def _print_index(export: ExportFolder) -> None:
    entry = export.manifest["index"]
    settings = "".join(f", {name} {value}" for name, value in entry["parameters"].items())
    recall = entry["recall"]
    found = "all of the exact answer"
    if recall["queries"]:
        found = (
            f"recall@{recall['at']} {recall['measured']:.4f} +- {recall['standard_error']:.4f} (asked for "
            f"{recall['target']:g}, {recall['queries']:,} queries), {entry['queries_per_second']:,} queries/s, threads "
            f"{entry['threads']}"
        )
    print(f"indexed: {export.path}  ({entry['kind']}{settings}; {entry['memory_bytes'] / 1e6:,.1f} MB; {found})")
