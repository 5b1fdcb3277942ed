"""Appending makes a new version: what ingesting everything together would hold, beside shards that nobody touched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mmrec.data.audit import problems
from mmrec.data.dataset import Dataset, verify_dataset
from mmrec.data.ingest import IngestConfig, ingest
from mmrec.errors import ConfigError, DataError
from tests.conftest import jpeg_bytes, mp4_bytes, wav_bytes

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
    with pytest.raises(ConfigError, match=r"--text-columns is title, but .* was made with title description; leave it"):
        ingest(replace(new, append_to=versions[0], text_columns=("title",)))
    np.save(tmp_path / "wide.npy", np.ones((4, 99), dtype=np.float32))
    with pytest.raises(DataError, match=r"--features vec: 99 numbers a row, but \d+ in"):
        ingest(replace(new, append_to=versions[0], features=(f"vec={tmp_path / 'wide.npy'}",)))


# Settings


def small(root: Path, name: str, items: str, events: str, **settings) -> IngestConfig:
    folder = root / name
    folder.mkdir()
    (folder / "items.csv").write_text(items)
    (folder / "events.csv").write_text(f"user_id,item_id,timestamp,rating\n{events}")
    tables = {"items": folder / "items.csv", "interactions": folder / "events.csv"}
    return IngestConfig(**tables, out=folder / "dataset", **settings)


@pytest.fixture
def rated(tmp_path) -> IngestConfig:
    """A first version of ratings of 4 and more, without the events before 10."""
    events = "u,a,5,5\nu,a,11,5\nu,b,12,1\nv,b,13,4\n"
    return small(tmp_path, "one", "item_id,text\na,A\nb,B\n", events, min_rating=4.0, since="10")


def test_settings_that_are_not_given_are_those_of_the_former_version(rated, tmp_path):
    first = ingest(replace(rated, image_side_px=64, text_columns=("text",), seed=7))
    second = small(tmp_path, "two", "item_id,text\nc,C\n", "u,c,20,1\nv,c,21,5\nv,a,3,5\n", append_to=first)
    manifest = Dataset.open(ingest(second)).manifest
    kept = ("min_rating", "since", "image_side_px", "video_side_px", "seed", "shard_size_mb", "text_columns")
    assert {name: manifest["build"][name] for name in kept} == {
        "min_rating": 4.0, "since": "10", "image_side_px": 64, "video_side_px": 256, "seed": 7, "shard_size_mb": 128,
        "text_columns": ["text"],
    }  # fmt: skip
    assert manifest["interactions"]["left_out"] == {"under_min_rating": 2, "before_since": 2}
    assert (manifest["interactions"]["given"], manifest["interactions"]["kept"]) == (7, 3)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"min_rating": 3.0},
            "--min-rating is 3.0, but .* was made with 4.0; leave it out, or ingest everything again",
        ),
        ({"since": "11"}, "--since is 11, but .* was made with 10"),
        ({"until": "30"}, "--until is 30, but .* was made with None; give a later moment"),
        ({"image_side_px": 64}, "--image-side-px is 64, but .* was made with 512"),
        ({"video_side_px": 0}, "--video-side-px is 0, but .* was made with 256"),
        ({"audio_rate_hz": 8000}, "--audio-rate-hz is 8000, but .* was made with 0"),
        ({"min_user_events": 2}, "--min-user-events counts all events, .* ingest everything again"),
    ],
)
def test_a_setting_that_differs_from_the_former_version_is_an_error(rated, tmp_path, given, words):
    first = ingest(rated)
    second = small(tmp_path, "two", "item_id,text\nc,C\n", "u,c,20,5\n", append_to=first, **given)
    with pytest.raises(ConfigError, match=words) as caught:
        ingest(second)
    assert "\n" not in str(caught.value)
    same = {"min_rating": 4.0, "since": "10", "image_side_px": 512, **dict.fromkeys(given), "min_user_events": 0}
    assert Dataset.open(ingest(replace(second, **same))).num_items == 3


def test_the_end_of_the_window_moves_on_and_never_back(rated, tmp_path):
    first = ingest(replace(rated, until="13"))
    second = small(tmp_path, "two", "item_id,text\nc,C\n", "u,c,20,5\nu,a,31,5\n", append_to=first, until="30")
    appended = Dataset.open(ingest(second))
    assert appended.sequences.timestamps.tolist() == [11, 20]
    with pytest.raises(ConfigError, match=r"--until is 12, but .* was made with 13; give a later moment"):
        ingest(replace(second, out=tmp_path / "three", until="12"))


def test_a_core_cannot_be_appended_to(rated, tmp_path):
    events = "".join(f"u{n},a,{n},5\nu{n},b,{n},5\n" for n in range(10, 14))
    first = ingest(small(tmp_path, "core", "item_id,text\na,A\nb,B\n", events, min_item_events=2))
    second = small(tmp_path, "two", "item_id,text\nc,C\n", "u,c,20,5\n", append_to=first)
    with pytest.raises(
        ConfigError, match=r"--min-item-events counts all events, of which .* keeps those that were left"
    ):
        ingest(second)


def test_the_manifest_lists_all_builds(rated, tmp_path):
    first = ingest(rated)
    second = ingest(small(tmp_path, "two", "item_id,text\nc,C\n", "u,c,20,5\n", append_to=first, shard_size_mb=1))
    third = ingest(
        small(tmp_path, "three", "item_id,text\nd,D\n", "u,d,30,5\n", append_to=second, unknown_items="drop")
    )
    builds = [Dataset.open(path).manifest["build"] for path in (first, second, third)]
    assert "former_builds" not in Dataset.open(first).manifest
    assert Dataset.open(second).manifest["former_builds"] == builds[:1]
    assert Dataset.open(third).manifest["former_builds"] == builds[:2]
    assert [build["shard_size_mb"] for build in builds] == [128, 1, 1]
    assert len({build["hash"] for build in builds}) == 3


def test_columns_may_have_other_names_in_the_new_table(rated, tmp_path):
    first = ingest(rated)
    (tmp_path / "p.jpg").write_bytes(jpeg_bytes(0))
    second = small(tmp_path, "two", "item_id,text,pic\nc,C,p.jpg\n", "u,c,20,5\n", append_to=first, media_root=tmp_path)
    dataset = Dataset.open(ingest(replace(second, image_column="pic")))
    assert dataset.read("image", dataset.item_index("c")) == jpeg_bytes(0)
    assert "pic" not in dataset.attributes.columns


def test_attributes_of_types_that_do_not_go_together_are_an_error_and_leave_nothing(rated, tmp_path):
    first = ingest(replace(rated, items=with_tags(tmp_path / "a.parquet", ["a", "b"], ["x", "y"])))
    second = small(tmp_path, "two", "", "u,c,20,5\n", append_to=first)
    second = replace(second, items=with_tags(tmp_path / "c.parquet", ["c"], [["x", "y"]]))
    with pytest.raises(DataError, match=r"column 'tags' of the new items is of type List\(String\), in .* type String"):
        ingest(second)
    assert not list(second.out.parent.glob("dataset*"))


def with_tags(path: Path, ids: list[str], tags: list) -> Path:
    pl.DataFrame({"item_id": ids, "text": ids, "tags": tags}).write_parquet(path)
    return path


# Media


def test_media_that_the_former_version_has_are_not_stored_again(tmp_path):
    (tmp_path / "media").mkdir()
    large, clip = jpeg_bytes(0, (900, 700)), mp4_bytes(1)
    cut = wav_bytes(440)[:-4000]
    for name, data in (("a.jpg", large), ("b.jpg", large), ("c.png", large), ("n.jpg", jpeg_bytes(3)), ("a.wav", cut)):
        (tmp_path / "media" / name).write_bytes(data)
    for name, data in (("a.mp4", clip), ("b.mp4", clip), ("b.wav", cut)):
        (tmp_path / "media" / name).write_bytes(data)
    rows = "item_id,image,audio,video\na,media/a.jpg,media/a.wav,media/a.mp4\n"
    first = ingest(small(tmp_path, "one", rows, "u,a,1,5\n", media_root=tmp_path))
    rows = "item_id,image,audio,video\nb,media/b.jpg,media/b.wav,media/b.mp4\nc,media/c.png,,\nn,media/n.jpg,,\n"
    second = small(tmp_path, "two", rows, "u,b,2,5\nu,c,3,5\n", media_root=tmp_path, append_to=first)
    dataset = Dataset.open(ingest(second))
    a, b, c, n = (dataset.item_index(item) for item in "abcn")
    for modality, items in (("image", (b, c)), ("audio", (b,)), ("video", (b,))):
        for item in items:
            assert dataset.location(modality, item) == dataset.location(modality, a)
    assert dataset.read("image", n) == jpeg_bytes(3)
    sizes = {path.name: path.stat().st_size for path in (dataset.path / "media").iterdir()}
    assert sizes["shard-00001.tar"] <= 10_240, "one small picture"
    errors = pl.read_parquet(dataset.path / "errors.parquet").select("item_id", "error", "message").rows()
    told = {(item, error): message for item, error, message in errors}
    assert told["b", "PartialMedia"].startswith("media/b.wav: cut off")
    assert told["c", "MislabelledMedia"] == "media/c.png: named .png but is jpg; used as jpg"
    assert problems(dataset.path) == []


def test_equal_bytes_of_other_names_are_stored_once_and_each_name_is_judged(tmp_path):
    (tmp_path / "media").mkdir()
    for name in ("a.png", "b.jpg", "c.jpeg", "d.gif"):
        (tmp_path / "media" / name).write_bytes(jpeg_bytes(0))
    rows = "item_id,image\n" + "".join(f"{name[0]},media/{name}\n" for name in ("a.png", "b.jpg", "c.jpeg", "d.gif"))
    dataset = Dataset.open(ingest(small(tmp_path, "one", rows, "u,a,1,5\n", media_root=tmp_path)))
    assert len({dataset.location("image", item) for item in range(4)}) == 1
    errors = pl.read_parquet(dataset.path / "errors.parquet").select("item_id", "error").sort("item_id").rows()
    assert errors == [("a", "MislabelledMedia"), ("d", "MislabelledMedia")]
    assert problems(dataset.path) == []
