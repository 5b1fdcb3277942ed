"""Each pipeline on a few rows as its publisher ships them: what becomes an event, a text, a medium; what is left."""

from __future__ import annotations

import gzip
import importlib
import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from data_pipelines import amazon_reviews, hm, kuairec, microlens, mind, music4all, pixelrec
from mmrec.data.dataset import Dataset
from mmrec.errors import DataError
from tests.conftest import jpeg_bytes, mp4_bytes, wav_bytes

PIPELINES = ("amazon_reviews", "hm", "kuairec", "microlens", "mind", "movielens", "music4all", "pixelrec")


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
    assert has(dataset, "image") == {"B1"}, "B2 names no picture"
    assert leaks(dataset) == set()
    errors = pl.read_parquet(dataset.path / "errors.parquet")
    assert "UnknownItem" in errors["error"].to_list()


def test_hm(tmp_path):
    columns = ("article_id", "product_code", *hm.TEXTS, *hm.ATTRIBUTES[:3])
    table(
        tmp_path / "articles.csv",
        ",".join(columns),
        '0108775015,0108775,Strap top,Vest top,Black,"Jersey top, narrow",Jersey,Ladies,Basic',
        "0200000001,0200000,Socks,Socks,White,,Socks,Men,Basic",
    )
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


def test_kuairec(tmp_path):
    columns = ("video_id", *kuairec.TEXTS, *kuairec.ATTRIBUTES)
    table(tmp_path / "kuairec_caption_category.csv", ",".join(columns), '0,A song,UNKNOWN,"[a, b]",Music,Pop,UNKNOWN',
          "1,A dance,Look,[],Dance,UNKNOWN,UNKNOWN")  # fmt: skip
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
    every = kuairec.KuaiRecConfig(source=tmp_path, out=tmp_path / "every", min_watch_ratio=0.0)
    assert histories(Dataset.open(kuairec.convert(every))) == {"7": ["0", "1", "0"]}


def test_microlens(tmp_path):
    table(tmp_path / "MicroLens-100k_title_en.csv", "item,title", "1,One", "2,Two")
    write(tmp_path / "MicroLens-100k_covers" / "1.jpg", jpeg_bytes(0))
    write(tmp_path / "MicroLens-100k_audios" / "1.wav", wav_bytes(440))
    write(tmp_path / "MicroLens-100k_videos" / "2.mp4", mp4_bytes(0))
    table(tmp_path / "MicroLens-100k_pairs.tsv", "9\t2 1")
    config = microlens.MicroLensConfig(source=tmp_path, out=tmp_path / "ordered")
    ordered = Dataset.open(microlens.convert(config))
    assert histories(ordered) == {"9": ["2", "1"]}
    assert ordered.sequences.order == "position"
    assert (has(ordered, "image"), has(ordered, "audio"), has(ordered, "video")) == ({"1"}, {"1"}, {"2"})
    table(tmp_path / "MicroLens-100k_pairs.csv", "user,item,timestamp", "9,1,1586700000000", "9,2,1586700001000")
    timed = Dataset.open(microlens.convert(microlens.MicroLensConfig(source=tmp_path, out=tmp_path / "timed")))
    assert histories(timed) == {"9": ["1", "2"]}
    assert timed.sequences.timestamps.tolist() == [1_586_700_000, 1_586_700_001]


def test_music4all(tmp_path):
    tabs = {"separator": "\t"}
    table(tmp_path / "id_information.csv", "id|artist|song|album_name", 'a|Duo|The "Tune"|Best', "b|Trio|Air|", **tabs)
    table(tmp_path / "id_genres.csv", "id|genres", "a|pop,rock", **tabs)
    table(tmp_path / "id_tags.csv", "id|tags", "b|calm", **tabs)
    table(tmp_path / "id_lang.csv", "id|lang", "a|en", "b|pt", **tabs)
    plays = ("user_1|b|2019-01-23 15:07", "user_1|a|2019-01-23 15:04", "user_1|b|2019-01-24 15:07")
    table(tmp_path / "listening_history.csv", "user|song|timestamp", *plays, **tabs)
    write(tmp_path / "audios" / "a.mp3", wav_bytes(440))
    dataset = Dataset.open(music4all.convert(music4all.Music4AllConfig(source=tmp_path, out=tmp_path / "out")))
    assert histories(dataset) == {"user_1": ["a", "b", "b"]}
    assert text_of(dataset, "a") == 'The "Tune"\nDuo\nBest\npop,rock'
    assert has(dataset, "audio") == {"a"}


def test_pixelrec(tmp_path):
    table(
        tmp_path / "item_info.csv",
        "item_id,view_number,title,tag,description",
        "v1,100,First,fun,About one", "v2,5,Second,,",
    )  # fmt: skip
    table(tmp_path / "Pixel200K.csv", "item_id,user_id,timestamp", "v2,u,1600000100", "v1,u,1600000000")
    write(tmp_path / "cover" / "v1.jpg", jpeg_bytes(0))
    dataset = Dataset.open(pixelrec.convert(pixelrec.PixelRecConfig(source=tmp_path, out=tmp_path / "out")))
    assert histories(dataset) == {"u": ["v1", "v2"]}
    assert text_of(dataset, "v1") == "First\nfun\nAbout one"
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
    config = amazon(tmp_path / "amazon")
    write(tmp_path / "amazon" / "All_Beauty.jsonl", "no json\n")
    with pytest.raises(DataError):
        amazon_reviews.convert(config)


@pytest.mark.parametrize("name", PIPELINES)
def test_each_pipeline_says_source_and_licence_and_how_it_is_run(name):
    module = importlib.import_module(f"data_pipelines.{name}")
    assert f"python -m data_pipelines.{name} --source" in module.__doc__
    assert "\nSource. " in module.__doc__
    assert "\nLicence. " in module.__doc__
    assert "\nMapping." in module.__doc__
    assert module.SOURCE
    assert module.LICENCE


def test_the_manifest_carries_source_and_licence_and_help_teaches(tmp_path):
    manifest = Dataset.open(amazon_reviews.convert(amazon(tmp_path))).manifest
    assert (manifest["source"], manifest["licence"]) == (amazon_reviews.SOURCE, amazon_reviews.LICENCE)
    root = Path(__file__).resolve().parents[2]
    told = subprocess.run(
        [sys.executable, "-m", "data_pipelines.hm", "--help"], cwd=root, capture_output=True, text=True, check=True
    ).stdout
    assert "H&M Personalized Fashion" in told
