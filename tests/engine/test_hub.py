"""push and pull: what arrives is what was sent, whole or not at all, with a card that says what it is."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import mmrec
from mmrec.cli import main
from mmrec.errors import CheckpointError, ConfigError, DataError
from mmrec.hub import pull, push
from mmrec.hub_card import CardSettings
from mmrec.training.checkpoint import find_checkpoint
from tests.engine.hub_server import running_hub

RECORDS = [{"text": "a red thing"}, {"text": "grey"}]


@pytest.fixture(scope="module")
def results(engine_run: Path, tiny_dataset_path: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("results") / "results"
    data = ["--data", str(tiny_dataset_path)]
    assert main(["evaluate", str(engine_run), *data, "--out", str(out), "--no-baselines"]) == 0
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def front_matter(card: str) -> dict:
    head, _, _ = card.removeprefix("---\n").partition("\n---\n")
    return yaml.safe_load(head)


@pytest.fixture(params=["folder", "url"])
def place(request, tmp_path: Path) -> str:
    return str(tmp_path / "there") if request.param == "folder" else f"memory://{tmp_path.name}/there"


def test_a_checkpoint_comes_back_as_it_went_without_what_only_training_needs(engine_run, place, tmp_path, engine):
    assert push(engine_run, place) == place
    assert pull(place, tmp_path / "here") == "checkpoint"
    sent, arrived = contents(find_checkpoint(engine_run)), contents(tmp_path / "here")
    kept = {name for name in sent if not name.startswith("training_state/")}
    assert arrived.keys() == kept
    assert {name for name in kept if arrived[name] != sent[name]} == {"README.md", "files.json"}
    found = mmrec.load(tmp_path / "here").encode_items(RECORDS)
    np.testing.assert_allclose(found, engine.encode_items(RECORDS), atol=1e-5)


def test_an_export_comes_back_as_it_went_and_answers(engine_export, engine, place, tmp_path):
    push(engine_export, place)
    assert pull(place, tmp_path / "here") == "export"
    sent, arrived = contents(engine_export), contents(tmp_path / "here")
    assert arrived.keys() == sent.keys() | {"README.md"}
    assert {name for name in sent if arrived[name] != sent[name]} <= {"README.md", "manifest.json"}
    query = mmrec.engine.Query(items=["i04"], record={"text": "red"})
    assert mmrec.load(tmp_path / "here").search(query, 5) == engine.search(query, 5)


def test_the_card_has_what_readers_and_the_hub_look_for(engine_run, results, tmp_path, tiny_dataset):
    settings = CardSettings(licence="apache-2.0", intended_use="To choose lamps.")
    push(engine_run, str(tmp_path / "there"), results=[results], settings=settings)
    card = (tmp_path / "there" / "README.md").read_text()
    record = json.loads((results / "metrics.json").read_text())
    head = front_matter(card)
    assert (head["library_name"], head["license"]) == ("mmrec", "apache-2.0")
    assert {"multimodal", "image", "text"} <= set(head["tags"])
    values = {metric["type"]: metric["value"] for metric in head["model-index"][0]["results"][0]["metrics"]}
    assert values["ndcg@10"] == pytest.approx(record["metrics"]["ndcg@10"], abs=1e-6)
    low, high = record["confidence_interval"]["ndcg@10"]
    assert f"| ndcg@10 | {record['metrics']['ndcg@10']:.4f} | {low:.4f} to {high:.4f} | " in card
    best = max(found["metrics"]["ndcg@10"] for found in record["baselines"].values())
    assert f"{best:.4f} (" in card
    for words in (
        "# mmrec checkpoint: hybrid on tiny", tiny_dataset.fingerprint[:16], "licence of the data: not stated",
        "To choose lamps.", "## Known limits", "mmrec.load(", record["protocol"]["hash"], "known items (",
    ):  # fmt: skip
        assert words in card


def test_the_hub_library_reads_the_card(engine_run, results, tmp_path):
    from huggingface_hub import ModelCard

    push(engine_run, str(tmp_path / "there"), results=[results])
    data = ModelCard.load(tmp_path / "there" / "README.md").data
    assert {result.metric_type for result in data.eval_results} >= {"hr@10", "ndcg@10", "mrr"}


def test_without_results_the_card_says_so_and_pushing_again_replaces_its_additions(engine_run, results, tmp_path):
    push(engine_run, str(tmp_path / "one"), results=[results])
    pull(str(tmp_path / "one"), tmp_path / "pulled")
    push(tmp_path / "pulled", str(tmp_path / "two"))
    push(engine_run, str(tmp_path / "three"))
    card = (tmp_path / "two" / "README.md").read_text()
    assert card == (tmp_path / "three" / "README.md").read_text()
    assert "None were given" in card
    assert "## Intended use\n\nRecommending items" in card


def test_what_the_card_of_an_export_says_already_is_not_said_twice(engine_export, tmp_path):
    push(engine_export, str(tmp_path / "there"))
    card = (tmp_path / "there" / "README.md").read_text()
    for heading in ("## Load", "## Intended use", "## Known limits"):
        assert card.count(heading) == 1
    assert "What it is meant for" not in card


def test_results_of_another_model_are_refused(engine_run, results, tmp_path):
    other = tmp_path / "results"
    shutil.copytree(results, other)
    record = json.loads((other / "metrics.json").read_text())
    record["model"]["hash"] = "f" * 64
    (other / "metrics.json").write_text(json.dumps(record))
    with pytest.raises(DataError, match="is of model ffffffffffff, what is pushed is model"):
        push(engine_run, str(tmp_path / "there"), results=[other])
    with pytest.raises(DataError, match="has no metrics"):
        push(engine_run, str(tmp_path / "there"), results=[tmp_path])
    assert not (tmp_path / "there").exists()


def test_unfinished_and_damaged_folders_are_not_pushed(engine_run, engine_export, tmp_path):
    unfinished = tmp_path / "unfinished"
    shutil.copytree(engine_export, unfinished)
    (unfinished / "manifest.json").unlink()
    (unfinished / "unfinished").mkdir()
    damaged = tmp_path / "damaged"
    shutil.copytree(engine_export, damaged)
    part = next((damaged / "embeddings").iterdir())
    part.write_bytes(part.read_bytes()[:-1] + b"\0")
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(find_checkpoint(engine_run), checkpoint)
    (checkpoint / "config.json").unlink()
    for folder, error, message in (
        (unfinished, DataError, "unfinished"),
        (damaged, DataError, "damaged"),
        (checkpoint, CheckpointError, "config.json is missing"),
        (tmp_path / "nothing", CheckpointError, "holds no checkpoint"),
    ):
        with pytest.raises(error, match=message):
            push(folder, str(tmp_path / "there"))
    assert not (tmp_path / "there").exists()


def test_what_was_changed_on_the_way_is_refused_and_a_mended_one_goes_on(engine_run, tmp_path):
    there, here = tmp_path / "there", tmp_path / "here"
    push(engine_run, str(there))
    weights = there / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DataError, match=r"model.safetensors is damaged: it is not what was pushed"):
        pull(str(there), here)
    assert not here.exists()
    weights.unlink()
    with pytest.raises(DataError, match=r"model.safetensors is missing"):
        pull(str(there), here)
    weights.write_bytes(whole)
    assert pull(str(there), here) == "checkpoint"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_an_interrupted_push_is_no_model_and_goes_on(engine_run, tmp_path, monkeypatch):
    from mmrec.data.store import Store

    url, put = f"memory://{tmp_path.name}/model", Store.put

    def fails_at_the_weights(self, name, file):
        if name == "model.safetensors":
            raise DataError("the disk is full")
        put(self, name, file)

    with monkeypatch.context() as patched:
        patched.setattr(Store, "put", fails_at_the_weights)
        with pytest.raises(DataError, match="the disk is full"):
            push(engine_run, url)
    with pytest.raises(DataError, match="holds nothing that was pushed whole"):
        pull(url, tmp_path / "here")
    push(engine_run, url)
    assert pull(url, tmp_path / "here") == "checkpoint"


def test_a_push_replaces_the_one_before_and_nothing_else(engine_run, engine_export, place, tmp_path):
    push(engine_export, place)
    push(engine_run, place)
    assert pull(place, tmp_path / "here") == "checkpoint"
    if not place.startswith("memory:"):
        assert not (Path(place) / "embeddings").exists(), "no file of the export is left"
    somebody_elses = tmp_path / "thesis"
    somebody_elses.mkdir()
    (somebody_elses / "chapter.txt").write_text("years of work")
    with pytest.raises(DataError, match="holds something else than a pushed model"):
        push(engine_run, str(somebody_elses))
    assert (somebody_elses / "chapter.txt").read_text() == "years of work"
    with pytest.raises(DataError, match="exists already"):
        pull(place, somebody_elses)


def test_a_listing_that_points_outside_of_the_folder_is_refused(engine_run, tmp_path):
    there = tmp_path / "there"
    push(engine_run, str(there))
    pushed = json.loads((there / "pushed.json").read_text())
    for name in ("../outside", "/etc/outside"):
        bad = pushed | {"files": pushed["files"] | {name: {"bytes": 0, "sha256": ""}}}
        (there / "pushed.json").write_text(json.dumps(bad))
        with pytest.raises(DataError, match="cannot be used"):
            pull(str(there), tmp_path / "here")
    (there / "pushed.json").write_text("{")
    with pytest.raises(DataError, match="cannot be used"):
        pull(str(there), tmp_path / "here")


def test_the_hub_is_named_by_user_and_name_and_is_not_asked_offline(engine_run, tmp_path):
    for name in ("hf://name", "hf://user/name/more"):
        with pytest.raises(ConfigError, match="give hf://USER/NAME"):
            push(engine_run, name)
    for ask in (lambda: push(engine_run, "hf://user/name"), lambda: pull("hf://user/name", tmp_path / "here")):
        with pytest.raises(DataError, match=r"HF_HUB_OFFLINE|cannot be used"):
            ask()


def hub_command(url: str, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A process of its own, for the library of the hub reads its address once."""
    kept = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment = kept | {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_TOKEN": "hf_x", "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-m", "mmrec", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


def test_the_hub_gets_one_commit_and_gives_back_what_it_got(engine_run, engine_export, engine, tmp_path):
    with running_hub() as hub:
        for folder in (engine_export, engine_run):  # the second replaces the first
            done = hub_command(hub.url, tmp_path, "push", str(folder), "hf://me/lamps")
            assert (done.returncode, done.stdout) == (0, "pushed: hf://me/lamps\n"), done.stderr
        assert hub.commits == 2
        assert hub.private == {"me/lamps": True}
        files = hub.repositories["me/lamps"]
        assert not [name for name in files if name.startswith(("embeddings/", "training_state/"))]
        done = hub_command(hub.url, tmp_path, "pull", "hf://me/lamps", str(tmp_path / "here"))
        assert done.returncode == 0, done.stderr
        assert contents(tmp_path / "here") == {name: data for name, data in files.items() if name != "pushed.json"}
        found = mmrec.load(tmp_path / "here").encode_items(RECORDS)
        np.testing.assert_allclose(found, engine.encode_items(RECORDS), atol=1e-5)

        files["model.safetensors"] = files["model.safetensors"][:-1] + b"?"
        done = hub_command(hub.url, tmp_path, "pull", "hf://me/lamps", str(tmp_path / "again"))
        assert done.returncode == 2
        assert "model.safetensors is damaged" in done.stderr
        done = hub_command(hub.url, tmp_path, "pull", "hf://me/tables", str(tmp_path / "again"))
        assert done.returncode == 2
        assert "hf://me/tables cannot be used" in done.stderr
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow  # the hub's library tries again for half a minute
def test_a_hub_that_does_not_answer_is_an_error_in_one_line(engine_run, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    for arguments in (("push", str(engine_run), "hf://me/lamps"), ("pull", "hf://me/lamps", str(tmp_path / "here"))):
        done = hub_command(url, tmp_path, *arguments)
        assert done.returncode == 2, done.stderr
        *retries, said = done.stderr.splitlines()
        assert said.startswith(f"mmrec {arguments[0]}: hf://me/lamps cannot be used: ")
        assert "Traceback" not in "".join(retries), "what the hub's own library tells of its attempts"


def test_the_commands_share_a_model(engine_run, engine, tmp_path, capsys):
    assert main(["push", str(engine_run), str(tmp_path / "there"), "--licence", "mit"]) == 0
    assert main(["pull", str(tmp_path / "there"), str(tmp_path / "here")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"pulled: {tmp_path / 'here'} (checkpoint)"
    assert front_matter((tmp_path / "here" / "README.md").read_text())["license"] == "mit"
    assert main(["pull", str(tmp_path / "nowhere"), str(tmp_path / "other")]) == 2
    assert "holds nothing that was pushed whole" in capsys.readouterr().err
