"""`mmrec check --html`: one page that needs nothing else, and shows what the data says as text."""

from __future__ import annotations

import base64
import io
import shutil
from html.parser import HTMLParser

import numpy as np
import polars as pl
import pytest
from PIL import Image

from mmrec.cli import main
from mmrec.data.dataset import Dataset
from mmrec.data.ingest import IngestConfig, ingest
from tests.conftest import jpeg_bytes, wav_bytes

# Elements without an end tag.
VOID = {"meta", "br", "img"}


class Page(HTMLParser):
    """Elements of a page; tags must close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag):
        if tag in ("li", "td", "th", "tr") or self.open:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, name: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def checked(dataset_path, tmp_path, capsys) -> tuple[str, Page]:
    assert main(["check", str(dataset_path), "--html", str(tmp_path / "page.html")]) == 0
    assert f"page: {tmp_path / 'page.html'}" in capsys.readouterr().out
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    return text, Page(text)


def test_the_page_loads_nothing_and_every_image_is_in_it(tiny_dataset_path, tmp_path, capsys):
    text, page = checked(tiny_dataset_path, tmp_path, capsys)
    assert page.all("script") == page.all("link") == page.all("iframe") == []
    images = page.all("img")
    assert len(images) >= 6
    for image in images:
        head, _, data = image["src"].partition(",")
        assert head == "data:image/jpeg;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).format == "JPEG"
        assert image["alt"]
    for _, attributes in page.tags:
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href"):
                assert value.startswith(("data:", "#"))
            if not name.startswith("xmlns") and not value.startswith("data:"):
                assert "//" not in value
    assert "url(http" not in text
    assert "@import" not in text


def test_the_page_draws_lengths_popularity_and_time_with_their_units(tiny_dataset_path, tmp_path, capsys):
    _, page = checked(tiny_dataset_path, tmp_path, capsys)
    labels = {svg["aria-label"] for svg in page.all("svg")}
    assert labels == {"Events a user", "Popularity", "Events over time"}
    for words in ("rank of the item, log scale", "events, log scale", "time (UTC)", "duration 0.50 s", "width 48 px"):
        assert words in page.text
    assert "No problems and nothing suspicious" in page.text
    assert "the item has no usable text, image, audio, video or vector" in page.text
    assert "not a readable image" in page.text


def test_what_the_data_says_stays_text(tmp_path, capsys):
    evil = "<script>alert(1)</script>"
    names = ("a", "b", "<b>c</b>")
    table = {
        "item_id": names,
        "text": [evil, f'{evil}"><img src=x>', "tame"],
        "image": ["a.jpg", "b.jpg", "no'<i>.jpg"],
    }
    pl.DataFrame(table).write_csv(tmp_path / "items.csv")
    rows = [f"u{user},{item},{time}\n" for user in range(4) for time, item in enumerate(names)]
    (tmp_path / "interactions.csv").write_text("user_id,item_id,timestamp\n" + "".join(rows))
    (tmp_path / "a.jpg").write_bytes(jpeg_bytes(0))
    (tmp_path / "b.jpg").write_bytes(jpeg_bytes(1))
    tables = {name: tmp_path / f"{name}.csv" for name in ("items", "interactions")}
    out = ingest(IngestConfig(**tables, out=tmp_path / "dataset", name=f"shop {evil}", num_workers=1))
    _, page = checked(out, tmp_path, capsys)
    assert page.all("script") == page.all("i") == []
    assert all(image["src"].startswith("data:") for image in page.all("img"))
    assert f"shop {evil}" in page.text
    assert "<b>c</b>" in page.text


def test_long_ids_titles_and_messages_are_shortened(tmp_path, capsys):
    """Ids may have 1,024 bytes; a page, and a line in a terminal, show where they begin."""
    long = "x" * 1_000
    pl.DataFrame({"item_id": [long, "b"], "text": ["word " * 5_000, "thing"], "image": ["no.jpg", None]}).write_csv(
        tmp_path / "items.csv"
    )
    events = "".join(f"u{n},{item},{t}\n" for n in range(4) for t, item in enumerate((long, "b", long)))
    (tmp_path / "interactions.csv").write_text("user_id,item_id,timestamp\n" + events)
    tables = {name: tmp_path / f"{name}.csv" for name in ("items", "interactions")}
    _, page = checked(ingest(IngestConfig(**tables, out=tmp_path / "dataset", num_workers=1)), tmp_path, capsys)
    assert "x" * 60 + "…" in page.text
    assert "x" * 400 not in page.text
    assert "word " * 100 not in page.text


def test_near_duplicates_stand_side_by_side(tmp_path, capsys):
    coarse = np.random.default_rng(0).integers(30, 200, (9, 12, 3)).astype(np.uint8)
    ground = Image.fromarray(coarse).resize((160, 120), Image.Resampling.BICUBIC)
    for name, quality in (("one", 95), ("two", 60)):
        ground.save(tmp_path / f"{name}.jpg", quality=quality)
    (tmp_path / "other.jpg").write_bytes(jpeg_bytes(4))
    (tmp_path / "tone.wav").write_bytes(wav_bytes(440.0))
    (tmp_path / "items.csv").write_text(
        "item_id,image,audio,text\none,one.jpg,tone.wav,A Lamp\ntwo,two.jpg,,Another lamp\nother,other.jpg,,A chair\n"
    )
    rows = [f"u{user},{item},{time}\n" for user in range(4) for time, item in enumerate(("one", "two", "other"))]
    (tmp_path / "interactions.csv").write_text("user_id,item_id,timestamp\n" + "".join(rows))
    tables = {name: tmp_path / f"{name}.csv" for name in ("items", "interactions")}
    out = ingest(IngestConfig(**tables, out=tmp_path / "dataset", num_workers=1))
    _, page = checked(out, tmp_path, capsys)
    assert sum("member" in attributes.get("class", "").split() for attributes in page.all("div")) == 2
    assert "2 items have nearly the image of another (in one group of up to 2: " in page.text


def test_a_medium_that_no_longer_decodes_is_said_to_and_not_hidden(tiny_dataset_path, tmp_path, capsys):
    """Bytes that were stored as they are, vouched for by their hash, and are no picture."""
    import hashlib
    import json

    import xxhash

    copy = shutil.copytree(tiny_dataset_path, tmp_path / "copy")
    items = pl.read_parquet(copy / "items.parquet")
    row = items.row(by_predicate=pl.col("item_id") == "i00", named=True)
    junk = b"x" * row["image.size"]
    with (copy / "media" / "shard-00000.tar").open("r+b") as shard:
        shard.seek(row["image.offset"])
        shard.write(junk)
    value = pl.when(pl.col("item_id") == "i00").then(pl.lit(xxhash.xxh3_64_intdigest(junk), pl.UInt64))
    items.with_columns(value.otherwise(pl.col("image.xxh3")).alias("image.xxh3")).write_parquet(copy / "items.parquet")
    manifest = json.loads((copy / "manifest.json").read_text())
    for name in ("items.parquet", "media/shard-00000.tar"):
        data = (copy / name).read_bytes()
        manifest["files"][name].update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    (copy / "manifest.json").write_text(json.dumps(manifest))
    _, page = checked(copy, tmp_path, capsys)
    assert "1 stored media (image) do not decode, for example that of item 'i00'" in page.text


@pytest.mark.parametrize("where", ["", "nowhere/page.html"])
def test_a_page_that_cannot_be_written_is_an_error_before_the_work(tiny_dataset_path, tmp_path, capsys, where):
    assert main(["check", str(tiny_dataset_path), "--html", str(tmp_path / where)]) == 2
    assert "give the path of a page to write" in capsys.readouterr().err


def test_what_is_printed_fits_into_80_columns(tiny_dataset_path, capsys):
    assert main(["check", str(tiny_dataset_path)]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert "image + text + vec" in printed
    assert Dataset.open(tiny_dataset_path).name == "tiny"
