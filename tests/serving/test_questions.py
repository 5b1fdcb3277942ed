"""What a server answers is what the Python interface answers."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

import mmrec
from mmrec.engine import Engine, History, Query
from tests.conftest import jpeg_bytes, mp4_bytes, wav_bytes


@pytest.fixture(scope="module")
def engine(served_export) -> Engine:
    return mmrec.load(served_export)


def as_json(hits) -> list[dict]:
    return json.loads(json.dumps([asdict(hit) for hit in hits]))


def results(response) -> list[list[dict]]:
    assert response.status_code == 200, response.text
    return response.json()["results"]


def test_recommend_answers_each_history(client, engine):
    histories = [("i01", "i02"), ("i07",)]
    found = client.post("/recommend", json={"histories": [{"items": list(items)} for items in histories], "k": 4})
    assert_close(results(found), [as_json(engine.recommend(History(items=items), 4)) for items in histories])


def test_similar_answers_each_item(client, engine):
    found = client.post("/similar", json={"items": ["i01", "i05"], "k": 3})
    assert_close(results(found), [as_json(engine.search(Query(items=(item,)), 3)) for item in ("i01", "i05")])


def test_search_answers_texts(client, engine):
    found = client.post("/search", json={"queries": [{"text": "a red thing"}, {"text": "grey"}], "k": 3})
    expected = [as_json(engine.search(Query(record={"text": text}), 3)) for text in ("a red thing", "grey")]
    assert_close(results(found), expected)


@pytest.mark.parametrize(
    "media",
    [
        {"image": jpeg_bytes(3)},
        {"audio": wav_bytes(300.0)},
        {"video": mp4_bytes(1)},
        {"image": jpeg_bytes(3), "audio": wav_bytes(300.0), "text": "a red thing"},
    ],
    ids="+".join,
)
def test_search_takes_files_as_one_new_item(client, engine, media):
    files = {name: ("../../etc/passwd", data) for name, data in media.items() if name != "text"}
    fields = {"k": "3"} | ({"text": media["text"]} if "text" in media else {})
    found = client.post("/search", files=files, data=fields)
    assert_close(results(found), [as_json(engine.search(Query(record=media), 3))])


def test_embed_gives_the_vectors_of_the_python_interface(client, engine):
    texts = [{"text": "a red thing"}, {"text": "a green thing that hums"}]
    by_json = client.post("/embed", json={"records": texts}).json()["vectors"]
    np.testing.assert_allclose(by_json, engine.encode_items(texts), atol=1e-5)
    picture = jpeg_bytes(7)
    by_form = client.post("/embed", files={"image": picture}).json()["vectors"]
    np.testing.assert_allclose(by_form, engine.encode_items([{"image": picture}]), atol=1e-5)


def test_items_tells_what_the_export_knows(client):
    found = client.get("/items/i01").json()
    assert (found["item_id"], found["title"].splitlines()[0]) == ("i01", "green thing 1")
    assert set(found["modalities"]) == {"text", "image", "video", "vec"}


def test_health_names_the_model_and_every_answer_names_the_export(client, engine):
    health = client.get("/health").json()
    manifest = engine.export.manifest
    assert (health["status"], health["num_items"], health["dim"]) == ("ok", 24, manifest["dim"])
    assert (health["model_hash"], health["modalities"]) == (manifest["model_hash"], manifest["modalities"])
    assert client.get("/items/i01").headers["x-export"] == health["export"]


def test_recommend_keeps_away_from_what_is_disliked_and_tells_why(client, engine):
    history = {"items": ["i01", "i02"], "disliked": ["i17"]}
    body = {
        "histories": [history],
        "k": 3,
        "explain": True,
        "rerank": "mmr:0.5",
        "where": {"category": ["green", "red"]},
    }
    (hits,) = results(client.post("/recommend", json=body))
    expected = engine.recommend(History(**history), 3, where=body["where"], rerank="mmr:0.5")
    assert [hit["item_id"] for hit in hits] == [hit.item_id for hit in expected]
    assert {reason["item_id"] for hit in hits for reason in hit["why"]} == {"i01", "i02"}


def test_search_mixes_texts_items_and_histories(client, engine):
    query = {"text": "a red thing", "items": ["i05"], "history": {"items": ["i01"]}}
    found = results(client.post("/search", json={"queries": [query], "k": 4}))
    expected = Query(record={"text": "a red thing"}, items=["i05"], history=History(items=["i01"]))
    assert_close(found, [as_json(engine.search(expected, 4))])
    form = client.post(
        "/search", data={"text": "a red thing", "item": ["i05", "i07"], "k": "4"}, files={"image": jpeg_bytes(3)}
    )
    expected = Query(record={"text": "a red thing", "image": jpeg_bytes(3)}, items=["i05", "i07"])
    assert_close(results(form), [as_json(engine.search(expected, 4))])


def test_the_documentation_names_every_route_and_needs_no_network(client):
    page, api = client.get("/docs").text, client.get("/openapi.json").json()
    assert {"/recommend", "/similar", "/search", "/embed", "/items/{item_id}", "/health", "/metrics"} <= set(
        api["paths"]
    )
    for path, methods in api["paths"].items():
        assert all(f"{method.upper()} {path}" in page for method in methods)
        assert all(route["description"] for route in methods.values())
    assert "src=" not in page
    assert "://" not in page


def test_metrics_count_requests_by_route_and_name_the_export(client):
    export = client.get("/health").json()["export"]
    client.get("/items/nope")
    text = client.get("/metrics").text
    assert 'mmrec_requests_total{route="/items/{item_id:path}",status="404"}' in text
    assert 'mmrec_request_seconds_bucket{le="0.1",route="/health"}' in text
    assert "mmrec_requests_in_flight 1.0" in text
    assert f'mmrec_export_items{{export="{export}"' in text
    assert "nope" not in text


def assert_close(found: list[list[dict]], expected: list[list[dict]]) -> None:
    """Equal items; the whole model of a server rounds a text's vector a little differently."""
    assert [[hit["item_id"] for hit in hits] for hits in found] == [
        [hit["item_id"] for hit in hits] for hits in expected
    ]
    for hits, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose([hit["score"] for hit in hits], [hit["score"] for hit in wanted], atol=1e-5)
