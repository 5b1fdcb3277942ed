"""Each pipeline on a few rows as its publisher ships them: what becomes an event, a text, a medium; what is left."""

from __future__ import annotations

import gzip
import importlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from data_pipelines import amazon_reviews, hm, kuairec, microlens, mind, movielens, music4all, pixelrec
from mmrec.data.dataset import Dataset
from mmrec.errors import DataError
from tests.conftest import jpeg_bytes, mp3_bytes, mp4_bytes, wav_bytes

ROOT = Path(__file__).resolve().parents[2]
PIPELINES = ("amazon_reviews", "hm", "kuairec", "microlens", "mind", "movielens", "music4all", "pixelrec")


def folder_bytes(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def write(path: Path, data: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def table(path: Path, *rows: str, separator: str = ",") -> None:
    write(path, "".join(row.replace("|", separator) + "\n" for row in rows))


def histories(dataset: Dataset) -> dict[str, list[str]]:
    sequences = dataset.sequences
    return {str(u): dataset.item_ids[sequences.items_of(n)].tolist() for n, u in enumerate(sequences.user_ids)}


def text_of(dataset: Dataset, item_id: str) -> str:
    found = dataset.read("text", dataset.item_index(item_id))
    assert isinstance(found, str)
    return found


def has(dataset: Dataset, modality: str) -> set[str]:
    return set(dataset.item_ids[dataset.present(modality)].tolist())


def leaks(dataset: Dataset) -> set[str]:
    return {name for name in dataset.attributes.columns if "number" in name or "rating" in name or "price" in name}


def amazon(root: Path, ending: str = "") -> amazon_reviews.AmazonReviewsConfig:
    pictures = [
        {"thumb": "t", "large": "https://x/side.jpg", "variant": "PT01", "hi_res": None},
        {"thumb": "t", "large": "https://x/main.jpg", "variant": "MAIN", "hi_res": None},
    ]
    pages = [
        {"parent_asin": "B1", "title": "Soap", "features": ["Soft", "Green"], "description": [], "price": "None",
         "average_rating": 4.5, "rating_number": 99, "images": pictures, "store": "S", "main_category": "All Beauty",
         "categories": ["Beauty", "Soap"], "details": {"Brand": "S"}},
        {"parent_asin": "B2", "title": "Brush", "features": [], "description": ["For hair."], "price": 3.5,
         "images": [], "store": None, "main_category": "All Beauty", "categories": []},
    ]  # fmt: skip
    reviews = [
        {
            "user_id": "u",
            "parent_asin": "B2",
            "asin": "B2x",
            "rating": 5.0,
            "timestamp": 1_600_000_001_000,
            "text": "!",
        },
        {
            "user_id": "u",
            "parent_asin": "B1",
            "asin": "B1x",
            "rating": 1.0,
            "timestamp": 1_600_000_000_000,
            "text": "?",
        },
        {"user_id": "v", "parent_asin": "gone", "asin": "g", "rating": 4.0, "timestamp": 1_600_000_000_000},
    ]
    for name, rows in (("meta_All_Beauty", pages), ("All_Beauty", reviews)):
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        write(root / f"{name}.jsonl{ending}", gzip.compress(data) if ending else data)
    write(root / "pictures" / "main.jpg", jpeg_bytes(0))
    write(root / "pictures" / "B2.jpg", jpeg_bytes(1))
    return amazon_reviews.AmazonReviewsConfig(
        source=root, out=root / "out", category="All_Beauty", images=root / "pictures"
    )


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_amazon_reviews(tmp_path, ending):
    dataset = Dataset.open(amazon_reviews.convert(amazon(tmp_path, ending)))
    assert histories(dataset) == {"u": ["B1", "B2"]}
    assert dataset.sequences.timestamps.tolist() == [1_600_000_000, 1_600_000_001]
    assert text_of(dataset, "B1") == "Soap\nSoft\nGreen"
    assert text_of(dataset, "B2") == "Brush\nFor hair."
    assert dataset.read("image", dataset.item_index("B1")) == jpeg_bytes(0)
    assert dataset.read("image", dataset.item_index("B2")) == jpeg_bytes(1), "under its own name: it names no picture"
    assert has(dataset, "image") == {"B1", "B2"}
    assert leaks(dataset) == set()
    errors = pl.read_parquet(dataset.path / "errors.parquet")
    assert "UnknownItem" in errors["error"].to_list()


def hm_articles(root: Path, more: int = 0) -> None:
    columns = ("article_id", "product_code", *hm.TEXTS, *hm.ATTRIBUTES[:3])
    table(
        root / "articles.csv",
        ",".join(columns),
        '0108775015,0108775,Strap top,Vest top,Black,"Jersey top, narrow",Jersey,Ladies,Basic',
        "0200000001,0200000,Socks,Socks,White,,Socks,Men,Basic",
        *(f"0{n:09d},0,Thing,Thing,Red,,Thing,Men,Basic" for n in range(more)),
    )


def test_hm(tmp_path):
    hm_articles(tmp_path)
    table(
        tmp_path / "transactions_train.csv",
        "t_dat,customer_id,article_id,price,sales_channel_id",
        "2020-09-02,c1,0200000001,0.01,2", "2018-09-20,c1,0108775015,0.05,2", "2018-09-20,c1,0108775015,0.05,2",
    )  # fmt: skip
    write(tmp_path / "images" / "010" / "0108775015.jpg", jpeg_bytes(0))
    dataset = Dataset.open(hm.convert(hm.HMConfig(source=tmp_path, out=tmp_path / "out")))
    assert histories(dataset) == {"c1": ["0108775015", "0200000001"]}
    assert text_of(dataset, "0108775015") == "Strap top\nVest top\nBlack\nJersey top, narrow"
    assert has(dataset, "image") == {"0108775015"}
    assert leaks(dataset) == set()
    late = hm.convert(hm.HMConfig(source=tmp_path, out=tmp_path / "late", since="2020-01-01"))
    assert histories(Dataset.open(late)) == {"c1": ["0200000001"]}


def test_mind(tmp_path):
    for part, rows in (
        ("train", ["1|U1|11/15/2019 8:55:22 AM|N1 N2|N3-1 N4-0", "2|U1|11/15/2019 1:00:00 PM|N1 N2|N4-1 N3-0"]),
        ("dev", ["3|U2|11/16/2019 8:00:00 AM||N1-0 N2-1"]),
    ):
        table(tmp_path / f"MINDsmall_{part}" / "behaviors.tsv", *rows, separator="\t")
        news = [f'N{n}|news|world|Title "{n}"|Abstract {n}|u|[]|[]' for n in range(1, 5)]
        table(tmp_path / f"MINDsmall_{part}" / "news.tsv", *news, separator="\t")
    dataset = Dataset.open(mind.convert(mind.MINDConfig(source=tmp_path, out=tmp_path / "out")))
    assert histories(dataset) == {"U1": ["N1", "N2", "N3", "N4"], "U2": ["N2"]}
    first = 1_573_808_122  # 2019-11-15 08:55:22 UTC
    assert dataset.sequences.timestamps.tolist()[:3] == [first - 2, first - 1, first]
    assert text_of(dataset, "N3") == 'Title "3"\nAbstract 3'
    without = mind.convert(mind.MINDConfig(source=tmp_path, out=tmp_path / "plain", history=False))
    assert histories(Dataset.open(without)) == {"U1": ["N3", "N4"], "U2": ["N2"]}
    told = [Dataset.open(path).manifest["build"]["pipeline"] for path in (tmp_path / "out", without)]
    assert told == [{"name": "mind", "history": True}, {"name": "mind", "history": False}]


def test_kuairec(tmp_path):
    columns = ("video_id", *kuairec.TEXTS, *kuairec.ATTRIBUTES)
    table(tmp_path / "kuairec_caption_category.csv", ",".join(columns), '0,A song,UNKNOWN,"[a, b]",Music,Pop,UNKNOWN',
          "1,A dance,Look,[],Dance,UNKNOWN,UNKNOWN",
          "2,A caption", "of two lines,UNKNOWN,[],Food,UNKNOWN,UNKNOWN")  # fmt: skip
    table(
        tmp_path / "big_matrix.csv",
        "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio",
        "7,1,9,10,x,20200705,1593878903.438,1.5", "7,0,1,10,x,20200705,1593878900.1,0.1",
        "7,0,9,10,x,20200705,1593878910.1,1.0",
    )  # fmt: skip
    dataset = Dataset.open(kuairec.convert(kuairec.KuaiRecConfig(source=tmp_path, out=tmp_path / "out")))
    assert histories(dataset) == {"7": ["1", "0"]}
    assert text_of(dataset, "0") == "A song\n[a, b]"
    assert text_of(dataset, "1") == "A dance\nLook"
    assert text_of(dataset, "2") == "A caption"
    assert dataset.manifest["build"]["pipeline"] == {"name": "kuairec_big", "matrix": "big", "min_watch_ratio": 1.0}
    every = kuairec.KuaiRecConfig(source=tmp_path, out=tmp_path / "every", min_watch_ratio=0.0)
    assert histories(Dataset.open(kuairec.convert(every))) == {"7": ["0", "1", "0"]}


def test_microlens(tmp_path):
    table(tmp_path / "MicroLens-100k_title_en.csv", '\ufeff1,One, "two", three', "2,Two")
    write(tmp_path / "MicroLens-100k_covers" / "1.jpg", jpeg_bytes(0))
    write(tmp_path / "MicroLens-100k_audios" / "1.wav", wav_bytes(440))
    write(tmp_path / "MicroLens-100k_videos" / "2.mp4", mp4_bytes(0))
    table(tmp_path / "MicroLens-100k_pairs.tsv", "9\t2 1")
    config = microlens.MicroLensConfig(source=tmp_path, out=tmp_path / "ordered")
    ordered = Dataset.open(microlens.convert(config))
    assert text_of(ordered, "1") == 'One, "two", three'
    assert histories(ordered) == {"9": ["2", "1"]}
    assert ordered.sequences.order == "position"
    assert (has(ordered, "image"), has(ordered, "audio"), has(ordered, "video")) == ({"1"}, {"1"}, {"2"})
    table(tmp_path / "MicroLens-100k_pairs.csv", "user,item,timestamp", "9,1,1586700000000", "9,2,1586700001000")
    timed = Dataset.open(microlens.convert(microlens.MicroLensConfig(source=tmp_path, out=tmp_path / "timed")))
    assert histories(timed) == {"9": ["1", "2"]}
    (tmp_path / "MicroLens-100k_title_en.csv").unlink()
    table(tmp_path / "MicroLens-50k_titles.csv", "item,title", '1,"One, two"', "2,Two")
    named = Dataset.open(microlens.convert(microlens.MicroLensConfig(source=tmp_path, out=tmp_path / "named")))
    assert text_of(named, "1") == "One, two"
    assert timed.sequences.timestamps.tolist() == [1_586_700_000, 1_586_700_001]


def test_music4all(tmp_path):
    tabs = {"separator": "\t"}
    table(tmp_path / "id_information.csv", "id|artist|song|album_name", 'a|Duo|The "Tune"|Best', "b|Trio|Air|", **tabs)
    table(tmp_path / "id_genres.csv", "id|genres", "a|pop,rock", **tabs)
    table(tmp_path / "id_tags.csv", "id|tags", "b|calm", **tabs)
    table(tmp_path / "id_lang.csv", "id|lang", "a|en", "b|pt", **tabs)
    plays = ("user_1|b|2019-01-23 15:07", "user_1|a|2019-01-23 15:04", "user_1|b|2019-01-24 15:07")
    table(tmp_path / "listening_history.csv", "user|song|timestamp", *plays, **tabs)
    write(tmp_path / "audios" / "a.mp3", mp3_bytes(0))
    write(tmp_path / "audios" / "b.mp3", mp3_bytes(1))
    dataset = Dataset.open(music4all.convert(music4all.Music4AllConfig(source=tmp_path, out=tmp_path / "out")))
    assert histories(dataset) == {"user_1": ["a", "b", "b"]}
    assert text_of(dataset, "a") == 'The "Tune"\nDuo\nBest\npop,rock'
    assert has(dataset, "audio") == {"a", "b"}
    assert dataset.read("audio", dataset.item_index("a")) == mp3_bytes(0)
    assert set(dataset.attributes["audio.ext"]) == {"mp3"}
    assert pl.read_parquet(dataset.path / "errors.parquet").is_empty()


@pytest.mark.parametrize(
    ("log", "info", "covers"),
    [
        ("Interaction/Pixel200K.csv", "Item Information/Pixel200K.csv", "cover"),
        ("dataset/Pixel200K.csv", "item_info.csv", "images"),
        ("interaction.csv", "item_info.csv", "cover"),
    ],
)
def test_pixelrec(tmp_path, log, info, covers):
    table(
        tmp_path / info,
        "item_id,view_number,comment_number,thumbup_number,share_number,coin_number,favorite_number,barrage_number,"
        "title,tag,description",
        'v1,100,1,2,3,4,5,6,"First, of all",fun,About one', "v2,5.0,,,,,,,Second,,",
    )  # fmt: skip
    table(tmp_path / log, "item_id,user_id,timestamp", "v2,u,1600000100", "v1,u,1600000000")
    write(tmp_path / covers / "v1.jpg", jpeg_bytes(0))
    dataset = Dataset.open(pixelrec.convert(pixelrec.PixelRecConfig(source=tmp_path, out=tmp_path / "out")))
    assert histories(dataset) == {"u": ["v1", "v2"]}
    assert text_of(dataset, "v1") == "First, of all\nfun\nAbout one"
    assert leaks(dataset) == set()
    missing = pl.read_parquet(dataset.path / "errors.parquet").filter(pl.col("modality") == "image")
    assert missing["item_id"].to_list() == ["v2"], "a cover that was not downloaded is told"


def test_a_folder_that_is_not_as_published_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"no file .*articles.csv; give the folder as it is published"):
        hm.convert(hm.HMConfig(source=tmp_path, out=tmp_path / "out"))
    with pytest.raises(DataError, match=r"has no \*_title_en.csv or \*_titles.csv"):
        microlens.convert(microlens.MicroLensConfig(source=tmp_path, out=tmp_path / "out"))
    table(tmp_path / "articles.csv", "article_id,prod_name", "1,x")
    with pytest.raises(
        DataError, match=r"articles.csv has no column 'product_type_name', .* \(it has article_id, prod_name\)"
    ):
        hm.convert(hm.HMConfig(source=tmp_path, out=tmp_path / "out"))


def test_what_is_wrong_with_a_table_is_told_of_the_publishers_file(tmp_path):
    config = amazon(tmp_path / "amazon")
    write(tmp_path / "amazon" / "All_Beauty.jsonl", "no json\n")
    with pytest.raises(DataError, match=r"amazon/All_Beauty\.jsonl cannot be read: error parsing line"):
        amazon_reviews.convert(config)
    hm_articles(tmp_path / "hm")
    table(tmp_path / "hm" / "transactions_train.csv", "t_dat,customer_id,article_id", "yesterday,c1,0200000001")
    with pytest.raises(DataError, match=r"hm/transactions_train\.csv cannot be read: .*'yesterday'|.*t_dat") as caught:
        hm.convert(hm.HMConfig(source=tmp_path / "hm", out=tmp_path / "out"))
    assert str(tmp_path / "hm" / "transactions_train.csv") in str(caught.value)
    write(tmp_path / "pack" / "items.parquet", b"no table")
    with pytest.raises(DataError, match=r"pack/items\.parquet cannot be read"):
        movielens.convert(movielens.MovieLensConfig(source=tmp_path / "pack", out=tmp_path / "out"))
    assert not list(tmp_path.glob("out*"))


def test_every_setting_of_a_build_can_be_given(tmp_path):
    hm_articles(tmp_path)
    rows = [
        f"2020-09-0{day},c{user},0{article}" for user in (1, 2) for day, article in ((1, "108775015"), (2, "200000001"))
    ]
    table(tmp_path / "transactions_train.csv", "t_dat,customer_id,article_id", *rows, "2020-09-03,c3,0200000001")
    write(tmp_path / "images" / "010" / "0108775015.jpg", jpeg_bytes(0, (80, 60)))
    config = hm.HMConfig(
        source=tmp_path, out=tmp_path / "out", min_user_events=2, image_side_px=32, video_side_px=64, shard_size_mb=1,
        audio_rate_hz=8000, seed=3, since="2020-09-01", until="2020-10-01", num_workers=1, executor="local",
    )  # fmt: skip
    dataset = Dataset.open(hm.convert(config))
    build = dataset.manifest["build"]
    given = {"min_user_events": 2, "image_side_px": 32, "video_side_px": 64, "shard_size_mb": 1, "audio_rate_hz": 8000}
    assert {name: build[name] for name in given} == given
    assert (build["seed"], build["since"], build["until"]) == (3, "2020-09-01", "2020-10-01")
    assert (build["unknown_items"], build["pipeline"]) == ("drop", {"name": "hm"})
    assert sorted(histories(dataset)) == ["c1", "c2"]
    assert dataset.attributes["image.height"].drop_nulls().to_list() == [32]


@pytest.mark.slow
def test_a_pipeline_that_is_killed_goes_on(tmp_path):
    hm_articles(tmp_path / "hm", more=60)
    rows = [f"2020-09-01,c1,0{n:09d}" for n in range(60)]
    table(tmp_path / "hm" / "transactions_train.csv", "t_dat,customer_id,article_id", *rows)
    for n in range(60):
        write(tmp_path / "hm" / "images" / "000" / f"0{n:09d}.jpg", jpeg_bytes(n, (500, 400)))
    command = [sys.executable, "-m", "data_pipelines.hm", "--source", str(tmp_path / "hm"), "--shard-size-mb", "1"]
    plain = hm.convert(hm.HMConfig(source=tmp_path / "hm", out=tmp_path / "plain", shard_size_mb=1))
    ledger = tmp_path / "out.build" / "ledger.jsonl"
    process = subprocess.Popen([*command, "--out", str(tmp_path / "out")], cwd=ROOT)
    while process.poll() is None and not ledger.exists():
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out.build" / "units").glob("*.tar")}
    assert kept
    assert not (tmp_path / "out").exists()
    subprocess.run([*command, "--out", str(tmp_path / "out")], cwd=ROOT, check=True, capture_output=True)
    assert folder_bytes(tmp_path / "out") == folder_bytes(plain)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hm", "out", "plain"]


@pytest.mark.parametrize("name", PIPELINES)
def test_each_pipeline_says_source_and_licence_and_how_it_is_run(name):
    module = importlib.import_module(f"data_pipelines.{name}")
    assert f"python -m data_pipelines.{name} --source" in module.__doc__
    assert "\nSource. " in module.__doc__
    assert "\nLicence. " in module.__doc__
    assert "\nMapping." in module.__doc__
    assert module.SOURCE
    assert module.LICENCE
    assert module.HOME.startswith("https://")
    assert module.HOME in module.__doc__, "where the data is to be had"


def test_the_manifest_carries_source_and_licence_and_help_teaches(tmp_path):
    manifest = Dataset.open(amazon_reviews.convert(amazon(tmp_path))).manifest
    assert manifest["source"] == f"{amazon_reviews.SOURCE}; {amazon_reviews.HOME}"
    assert manifest["licence"] == amazon_reviews.LICENCE
    assert manifest["build"]["pipeline"] == {"name": "amazon_all_beauty", "category": "All_Beauty"}, "no path"
    told = subprocess.run(
        [sys.executable, "-m", "data_pipelines.hm", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert "H&M Personalized Fashion" in told
    for option in ("executor", "num-workers", "shard-size-mb", "image-side-px", "min-user-events", "until"):
        assert f"--{option}" in told
