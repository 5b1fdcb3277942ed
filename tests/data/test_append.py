"""Appending makes a new version: what ingesting everything together would hold, beside shards that nobody touched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mmrec.data.dataset import Dataset, verify_dataset
from mmrec.data.ingest import IngestConfig, ingest
from mmrec.errors import ConfigError, DataError

TEXTS = ("title", "description")


def part(source: Path, folder: Path, items: slice, events: slice) -> IngestConfig:
    """Some rows of the tiny world's tables and vectors, with its media."""
    folder.mkdir()
    table = pl.read_csv(source / "items.csv", infer_schema_length=None)
    table[items].write_csv(folder / "items.csv")
    pl.read_csv(source / "interactions.csv")[events].write_csv(folder / "interactions.csv")
    np.save(folder / "vec.npy", np.load(source / "vec.npy")[items])
    return IngestConfig(
        items=folder / "items.csv",
        interactions=folder / "interactions.csv",
        features=(f"vec={folder / 'vec.npy'}",),
        media_root=source,
        text_columns=TEXTS,
        out=folder / "dataset",
        name="tiny",
    )


@pytest.fixture(scope="module")
def versions(tiny_source, tmp_path_factory) -> tuple[Path, Path, Path]:
    """The first version, the one with the rest appended, and everything ingested together."""
    root = tmp_path_factory.mktemp("versions")
    known = pl.read_csv(tiny_source / "items.csv")["item_id"][:16].to_list()
    events = pl.read_csv(tiny_source / "interactions.csv")
    old = events.with_row_index().filter(pl.col("item_id").is_in(known))["index"].to_list()
    rest = [row for row in range(events.height) if row not in set(old)]
    first = ingest(part(tiny_source, root / "first", slice(0, 16), old))
    second = part(tiny_source, root / "second", slice(16, None), rest)
    second = ingest(replace(second, append_to=first))
    together = ingest(part(tiny_source, root / "together", slice(None), [*old, *rest]))
    return first, second, together


def content(dataset: Dataset, item_id: str) -> dict[str, object]:
    idx = dataset.item_index(item_id)
    found = {name: dataset.read(name, idx) for name in dataset.modalities if dataset.present(name)[idx]}
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in found.items()}


def test_a_version_holds_what_ingesting_everything_together_holds(versions):
    _, appended, together = (Dataset.open(path) for path in versions)
    assert sorted(appended.item_ids) == sorted(together.item_ids)
    for item_id in together.item_ids:
        assert content(appended, item_id) == content(together, item_id)
    assert list(appended.sequences.user_ids) == list(together.sequences.user_ids)
    for user in range(together.num_users):
        found = appended.item_ids[appended.sequences.items_of(user)]
        assert list(found) == list(together.item_ids[together.sequences.items_of(user)])
    assert np.array_equal(appended.sequences.timestamps, together.sequences.timestamps)
    attributes = ["item_id", "title", "description", "category"]
    assert (
        appended.attributes.select(attributes)
        .sort("item_id")
        .equals(together.attributes.select(attributes).sort("item_id"))
    )
    assert appended.manifest["counts"]["media"] == together.manifest["counts"]["media"]


def test_former_shards_are_shared_and_keys_go_on(versions):
    first, appended, _ = versions
    for shard in (first / "media").iterdir():
        assert (appended / "media" / shard.name).samefile(shard)
    keys = Dataset.open(appended).attributes["media_key"]
    assert keys.n_unique() == len(keys) == 24
    assert verify_dataset(appended) == verify_dataset(first) == []


def test_indices_tell_not_which_items_are_new(versions):
    first, appended, _ = (Dataset.open(path) for path in versions)
    former = np.isin(appended.item_ids, first.item_ids)
    assert former[:8].sum() < 8
    assert former[-8:].sum() > 0


def test_the_version_names_the_one_before(versions):
    first, appended, _ = (Dataset.open(path) for path in versions)
    assert appended.manifest["appended_to"] == first.fingerprint


def test_events_alone_can_be_appended(tiny_source, versions, tmp_path):
    first = Dataset.open(versions[0])
    (tmp_path / "more.csv").write_text(f"user_id,item_id,timestamp\nnobody,{first.item_ids[3]},2000000000\n")
    more = IngestConfig(interactions=tmp_path / "more.csv", append_to=versions[0], out=tmp_path / "out")
    appended = Dataset.open(ingest(more))
    assert appended.num_items == first.num_items
    user = list(appended.sequences.user_ids).index("nobody")
    assert appended.item_ids[appended.sequences.items_of(user)].tolist() == [first.item_ids[3]]
    assert len(appended.sequences.item_idx) == len(first.sequences.item_idx) + 1


def test_an_event_of_either_version_counts_once(versions, tmp_path):
    first = Dataset.open(versions[0])
    user, item = first.sequences.user_ids[0], first.item_ids[first.sequences.items_of(0)[0]]
    (tmp_path / "more.csv").write_text(f"user_id,item_id,timestamp\n{user},{item},{first.sequences.timestamps[0]}\n")
    more = IngestConfig(interactions=tmp_path / "more.csv", append_to=versions[0], out=tmp_path / "out")
    appended = Dataset.open(ingest(more))
    assert len(appended.sequences.item_idx) == len(first.sequences.item_idx)
    assert appended.manifest["interactions"]["left_out"]["RepeatedEvent"] >= 1


def test_what_cannot_be_appended_is_an_error(tiny_source, versions, tmp_path):
    again = part(tiny_source, tmp_path / "again", slice(10, 20), slice(0, 1))
    with pytest.raises(DataError, match=r"6 of the items are in .* already"):
        ingest(replace(again, append_to=versions[0]))
    new = part(tiny_source, tmp_path / "new", slice(16, 20), slice(0, 0))
    (tmp_path / "new" / "interactions.csv").write_text("user_id,item_id\nu,i16\n")
    with pytest.raises(DataError, match="append events that are told in the same way"):
        ingest(replace(new, append_to=versions[0]))
    with pytest.raises(ConfigError, match="--text-columns is title, but .* was made with title description; leave it"):
        ingest(replace(new, append_to=versions[0], text_columns=("title",)))
    np.save(tmp_path / "wide.npy", np.ones((4, 99), dtype=np.float32))
    with pytest.raises(DataError, match=r"--features vec: 99 numbers a row, but \d+ in"):
        ingest(replace(new, append_to=versions[0], features=(f"vec={tmp_path / 'wide.npy'}",)))
