"""What the page asks of its server: cards, thumbnails, media, the map; and who may ask."""

from __future__ import annotations

import io

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from mmrec.cli import main
from mmrec.data.dataset import Dataset
from mmrec.errors import DataError
from mmrec.explore.app import build_explore_app
from mmrec.explore.catalog import Catalog
from mmrec.explore.space import make_map, spread_items
from mmrec.principal_plane import principal_plane
from mmrec.serving.app import ServeSettings


@pytest.fixture(scope="module")
def client(world):
    app = build_explore_app(world["hybrid"], ServeSettings(num_decoders=1), data=world["dataset"], compare=world["ids"])
    return TestClient(app, base_url="http://127.0.0.1:8765")  # not started: these routes need no workers


@pytest.fixture(scope="module")
def catalog(engine, world):
    return Catalog(engine.export, Dataset.open(world["dataset"]))


def test_a_card_has_what_is_known_of_the_item(client):
    cards = client.post("/cards", json={"item_ids": ["i07", "i23"]}).json()["cards"]
    assert cards[0]["title"] == "grey thing 7"
    assert set(cards[0]["modalities"]) >= {"image", "text", "video"}
    assert cards[0]["attributes"] == {"category": "grey"}
    assert cards[0]["text"] == "A grey thing that hums at 360 hertz."
    assert cards[0]["media"] == ["image", "video"]
    assert (cards[1]["title"], cards[1]["text"], cards[1]["media"]) == ("i23", "", [])


def test_media_are_the_bytes_of_the_dataset(client, world):
    dataset = Dataset.open(world["dataset"])
    idx = dataset.item_index("i07")
    whole = client.get("/media/i07/video")
    assert whole.content == dataset.read("video", idx)
    assert whole.headers["content-type"] == "video/mp4"
    part = client.get("/media/i07/video", headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, whole.content[100:200])


@pytest.mark.parametrize("item", ["i07", "i04", "i09"])  # a picture; nothing but text; a sound alone
def test_thumbnails_are_small_pictures(client, world, item):
    response = client.get(f"/thumbnail/{item}")
    dataset = Dataset.open(world["dataset"])
    has = any(dataset.location(name, dataset.item_index(item)) for name in ("image", "audio", "video"))
    assert response.status_code == (200 if has else 404)
    if has:
        assert max(Image.open(io.BytesIO(response.content)).size) <= 400


@pytest.mark.parametrize(
    "path",
    [
        "/media/nope/image",
        "/media/i23/image",
        "/media/i07/audio",
        "/media/i07/text",
        "/media/i07/../../secret",
        "/thumbnail/nope",
    ],
)
def test_what_is_not_there_is_not_found(client, path):
    response = client.get(path)
    assert response.status_code == 404
    assert set(response.json()) == {"error"}


def test_unknown_items_have_no_card(client):
    response = client.post("/cards", json={"item_ids": ["i07", "nope"]})
    assert response.status_code == 404
    assert "unknown item_id 'nope'" in response.json()["error"]


def test_every_answer_forbids_what_comes_from_elsewhere(client):
    for path in ("/", "/about", "/static/main.js", "/thumbnail/nope", "/other/about"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'self'; ")
        assert headers["x-content-type-options"] == "nosniff"


def test_other_names_of_this_machine_get_nothing(client):
    assert client.get("/about", headers={"Host": "evil.example"}).status_code == 400
    assert client.get("/about", headers={"Host": "localhost:8765"}).status_code == 200


def test_the_second_export_answers_below_other(client):
    first, second = client.get("/about").json(), client.get("/other/about").json()
    assert (first["name"], second["name"]) == ("hybrid", "ids")
    assert first["compares"]
    assert not second["compares"]
    assert second["queried_by"] == []


def test_the_map_is_the_plane_of_the_first_two_principal_components(client, engine):
    drawn = client.get("/map").json()
    vectors = engine.export.vectors.astype(np.float64)
    centred = vectors - vectors.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    shares = sizes**2 / (sizes**2).sum()
    np.testing.assert_allclose(drawn["explained"], shares[:2], atol=1e-5)
    for axis, values in enumerate((drawn["x"], drawn["y"])):
        assert abs(np.corrcoef(values, left[:, axis])[0, 1]) == pytest.approx(1, abs=1e-5)
    assert drawn["item_ids"] == engine.export.item_ids.tolist()
    assert (drawn["shown"], drawn["of"]) == (24, 24)
    category = drawn["colours"]["category"]
    of_item = dict(zip(drawn["item_ids"], category["codes"], strict=True))
    assert category["names"][of_item["i07"]] == "grey"
    assert set(drawn["colours"]) == {"category", "modalities"}


def test_of_a_large_catalogue_a_draw_is_mapped(catalog):
    drawn = make_map(catalog, max_points=10)
    assert (drawn["shown"], drawn["of"], len(set(drawn["item_ids"]))) == (10, 24, 10)
    assert drawn == make_map(catalog, max_points=10)
    assert drawn["item_ids"] != make_map(catalog, max_points=10, seed=1)["item_ids"]


def test_the_plane_of_equal_or_narrow_vectors_is_a_point_or_a_line():
    places, shares = principal_plane(np.ones((5, 3), dtype=np.float32))
    assert (places == 0).all()
    assert (shares == 0).all()
    places, shares = principal_plane(np.arange(3, dtype=np.float32)[:, None])
    np.testing.assert_allclose(places, [[-1, 0], [0, 0], [1, 0]])
    np.testing.assert_allclose(shares, [1, 0])


def test_the_spread_takes_each_time_the_item_that_is_farthest_from_those_taken(catalog, engine):
    taken = spread_items(catalog, 8, seed=3)
    vectors = dict(zip(engine.export.item_ids.tolist(), engine.export.vectors.astype(np.float64), strict=True))
    assert len(set(taken)) == 8
    for number in range(1, 8):
        similarity = {
            item: max(vector @ vectors[other] for other in taken[:number])
            for item, vector in vectors.items() if item not in taken[:number]
        }  # fmt: skip
        assert similarity[taken[number]] == pytest.approx(min(similarity.values()), abs=1e-6)
    assert len(spread_items(catalog, 200, seed=0)) == 24


def test_a_dataset_of_other_items_is_refused(world, tiny_source, tmp_path, capsys):
    (tmp_path / "items.csv").write_text("item_id,title\nz1,one\nz2,two\n")
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\nu,z1,1\nu,z2,2\n")
    tables = ["--items", str(tmp_path / "items.csv"), "--interactions", str(tmp_path / "log.csv")]
    assert main(["ingest", *tables, "--text-columns", "title", "--out", str(tmp_path / "other")]) == 0
    with pytest.raises(DataError, match="has none of the 24 items"):
        build_explore_app(world["hybrid"], ServeSettings(num_decoders=1), data=tmp_path / "other")


def test_wrong_arguments_get_one_line(world, capsys):
    for arguments, said in (
        (["nowhere"], "nowhere"),
        ([str(world["hybrid"]), "--data", "nowhere"], "no dataset folder nowhere"),
        ([str(world["hybrid"]), "--port", "70000"], "--port is 70000"),
    ):
        capsys.readouterr()
        assert main(["explore", *arguments, "--no-browser"]) == 2
        error = capsys.readouterr().err.strip().splitlines()
        assert len(error) == 1
        assert said in error[0]
