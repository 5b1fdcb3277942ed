"""Media as the index says they lie in the shards, against the shards: places, names, and every byte."""

from __future__ import annotations

import os
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import xxhash

from mmrec.data.audit.folder import AuditedFolder
from mmrec.data.audit.wording import first_of, named
from mmrec.data.manifest import MEDIA_MODALITIES
from mmrec.data.progress import progress
from mmrec.data.shards import item_key, shard_name

__all__ = ["media_problems"]

_AGAIN = "ingest the data again"


def media_problems(folder: AuditedFolder, items: pl.DataFrame | None) -> Iterator[str]:
    """The sha256 of each shard; the places in ``items`` against its members; each medium against its XXH3.

    Several items may point to one member; its key must be the ``media_key`` of one of them.

    Args:
        items: None where the table cannot be judged by; then the shards are, as files, alone.
    """
    files = folder.manifest["files"]
    listed = {name: facts["bytes"] for name, facts in files.items() if name.startswith("media/")}
    entries = None if items is None else _entries(items)
    pointed = set() if entries is None else {shard_name(shard) for shard in entries["shard"].unique().to_list()}
    with progress("hashing media", sum(listed.values()), "bytes") as advance:
        for name in sorted({*listed, *pointed}):
            yield from folder.fetch(name) if name in listed else ()
            if entries is not None:
                here = entries.filter(pl.col("shard_name") == name)
                yield from _shard(folder.root / name, name, here, files.get(name, {}).get("n"))
            folder.release(name)
            advance(listed.get(name, 0))


def _shard(file: Path, name: str, entries: pl.DataFrame, stated: int | None) -> Iterator[str]:
    """One shard against the places in it."""
    if not file.is_file():
        for (modality,), part in entries.group_by("modality", maintain_order=True):
            owners = named("item", part["item_id"].to_list())
            yield f"the {modality} of {owners} is said to lie in {name}, which is not there; {_AGAIN}"
        return
    if not entries.height:
        yield f"{name}: no item points to it; {_AGAIN}"
        return
    members, fault = _members(file)
    if fault:
        yield f"{name} is no whole tar file ({fault}); {_AGAIN}"
    yield from _members_and_index(name, members, entries, stated)
    yield from _bytes(file, entries)


def _entries(items: pl.DataFrame) -> pl.DataFrame:
    """One row for each medium of each item, with the name that its member would have by the item's own key."""
    keys = items["media_key"].cast(pl.Int64).alias("key")
    parts = []
    for modality in MEDIA_MODALITIES:
        fields = [items[f"{modality}.{name}"].alias(name) for name in ("shard", "offset", "size", "xxh3", "ext")]
        part = pl.DataFrame([items["item_id"], keys, *fields])
        parts.append(part.with_columns(pl.lit(modality).alias("modality")).filter(pl.col("shard").is_not_null()))
    entries = pl.concat(parts)
    names = [
        f"{item_key(key) if key is not None else 'no key'}.{modality}.{ext}"
        for key, modality, ext in entries.select("key", "modality", "ext").iter_rows()
    ]
    shards = [shard_name(shard) for shard in entries["shard"].to_list()]
    return entries.with_columns(
        pl.Series("name", names, dtype=pl.String), pl.Series("shard_name", shards, dtype=pl.String)
    )


def _members(file: Path) -> tuple[pl.DataFrame, str]:
    """Offset of the content, size and name of each member up to where the file breaks, and why it breaks there."""
    rows, fault = [], ""
    try:
        with tarfile.open(file, "r:") as tar:
            rows = [(member.offset_data, member.size, member.name) for member in tar]
    except (tarfile.TarError, OSError) as error:
        fault = str(error)
    schema = {"offset": pl.Int64, "member_size": pl.Int64, "member": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row"), fault


def _members_and_index(shard: str, members: pl.DataFrame, entries: pl.DataFrame, stated: int | None) -> Iterator[str]:
    joined = entries.join(members, on="offset", how="left", maintain_order="left")
    pointed = pl.col("member").is_not_null()
    # Of the items that share a member, one gave it its name.
    owned = (pl.col("member") == pl.col("name")).any().over("offset")
    rules = {
        "does not begin where a member of the tar file begins": ~pointed,
        "has another size in the tar file than in items.parquet": pointed & (pl.col("size") != pl.col("member_size")),
        "lies in a member that is named for another item, modality or extension": pointed & ~owned,
    }
    for what, rule in rules.items():
        for (modality,), wrong in joined.filter(rule).group_by("modality", maintain_order=True):
            yield f"{shard}: the {modality} of {named('item', wrong['item_id'].to_list())} {what}; {_AGAIN}"
    nobodys = members.filter(~pl.col("offset").is_in(entries["offset"].unique().to_list()))["member"].to_list()
    if nobodys:
        yield f"{shard}: no item points to {named('member', nobodys)}; {_AGAIN}"
    keys = members["member"].str.split(".").list.first()
    doubled = members.filter(members["member"].is_duplicated())["member"].unique(maintain_order=True).to_list()
    if doubled:
        yield f"{shard}: {named('member', doubled)} more than once, which WebDataset readers refuse; {_AGAIN}"
    elif keys.rle().len() > keys.n_unique():
        apart = keys.rle().struct.field("value")
        names = first_of(apart.filter(apart.is_duplicated()).unique(maintain_order=True).to_list())
        yield f"{shard}: members of key {names} do not stand together, so WebDataset readers split the item; {_AGAIN}"
    if stated is not None and stated != keys.n_unique():
        yield f"manifest.json says n of {shard}: {stated}, the shard holds {keys.n_unique()} keys; {_AGAIN}"


def _bytes(file: Path, entries: pl.DataFrame) -> Iterator[str]:
    """Read each stored medium once and compare its hash; texts must be UTF-8 too."""
    wrong: dict[tuple[str, str], list[str]] = defaultdict(list)
    handle = os.open(file, os.O_RDONLY)
    length = os.fstat(handle).st_size
    last, fault = None, ""
    try:
        columns = ("offset", "size", "xxh3", "modality", "item_id")
        for offset, size, xxh3, modality, item_id in entries.sort("offset").select(columns).iter_rows():
            if (offset, size, xxh3, modality) != last:
                fault = _fault(handle, length, offset, size, xxh3, modality)
                last = offset, size, xxh3, modality
            if fault:
                wrong[modality, fault].append(item_id)
    finally:
        os.close(handle)
    for (modality, fault), item_ids in wrong.items():
        yield f"media/{file.name}: the {modality} of {named('item', item_ids)} {fault}; {_AGAIN}"


def _fault(handle: int, length: int, offset: int, size: int, xxh3: int, modality: str) -> str:
    if offset < 0 or size < 0 or offset + size > length:
        return f"is said to lie outside of the file's {length:,} bytes"
    data = os.pread(handle, size, offset)
    if xxhash.xxh3_64_intdigest(data) != xxh3:
        return "is damaged: its XXH3 is not that of items.parquet"
    if modality == "text":
        try:
            data.decode()
        except UnicodeDecodeError:
            return "is no UTF-8"
    return ""
