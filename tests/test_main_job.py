"""The main job through the command line: train, evaluate, export, search, recommend, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmrec.cli import main
from mmrec.model import load_model
from mmrec.training.checkpoint import file_hash


@pytest.fixture(scope="module")
def job(tiny_dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A trained hybrid, its evaluation and its export."""
    root = tmp_path_factory.mktemp("job")
    paths = {"data": tiny_dataset_path, "run": root / "run", "results": root / "results", "export": root / "export"}
    data = ["--data", str(tiny_dataset_path)]
    assert main(["train", "hybrid", *data, "--out", str(paths["run"]), "--max-epochs", "2"]) == 0
    assert main(["evaluate", str(paths["run"]), *data, "--out", str(paths["results"])]) == 0
    assert main(["export", str(paths["run"]), *data, "--out", str(paths["export"]), "--index"]) == 0
    return paths


def metrics(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def test_the_record_has_what_the_contract_names(job):
    record = metrics(job["results"])
    assert record["protocol"]["hash"]
    assert {"hr@10", "ndcg@10", "mrr", "recall@50", "recall@20", "ndcg@20"} <= record["metrics"].keys()
    assert {"popularity", "item_knn", "ease", "sequential_rules", "random"} <= record["baselines"].keys()
    assert {"warm_items", "history_length", "popularity"} <= record["slices"].keys()
    assert (job["results"] / "ranks.parquet").is_file()
    assert "<html" in (job["results"] / "report.html").read_text()


def test_exported_vectors_alone_give_the_metrics_of_the_checkpoint(job, tmp_path):
    again = tmp_path / "again"
    arguments = ["evaluate", "--embeddings", str(job["export"]), "--data", str(job["data"]), "--out", str(again)]
    assert main([*arguments, "--no-baselines"]) == 0
    assert metrics(again)["metrics"] == metrics(job["results"])["metrics"]


def test_search_and_recommend_answer_in_json(job, capsys):
    assert main(["search", str(job["export"]), "--text", "a red lamp", "--k", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [hit["rank"] for hit in found] == [1, 2, 3]
    ids = [hit["item_id"] for hit in found]
    assert main(["recommend", str(job["export"]), "--items", *ids[:2], "--k", "4", "--json"]) == 0
    answer = [hit["item_id"] for hit in json.loads(capsys.readouterr().out)]
    assert len(answer) == 4
    assert not set(ids[:2]) & set(answer)


def test_a_model_loaded_for_some_modalities_gives_the_vectors_of_the_whole_one(job):
    folder = job["export"] / "model"
    part, whole = load_model(folder, only=["text"]), load_model(folder)
    records = [{"text": "a red lamp"}, {"text": "grey thing"}]
    vectors = [model.encode_items(model.inputs.from_records(records)) for model in (part, whole)]
    assert list(part.item_encoder.encoders) == ["text"]
    torch.testing.assert_close(*vectors, atol=1e-5, rtol=0)


def test_a_query_loads_no_library_of_networks(job):
    program = (
        "import sys; from mmrec.cli import main; main(sys.argv[1:]);"
        "print([name for name in ('transformers', 'timm', 'torchvision') if name in sys.modules])"
    )
    arguments = ["search", str(job["export"]), "--text", "a red lamp", "--json"]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_search_takes_media_files(job, tiny_source, capsys):
    picture = next((tiny_source / "media").glob("*.jpg"))
    assert main(["search", str(job["export"]), "--image", str(picture), "--k", "2", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2


def test_a_finished_run_is_not_trained_again(job, caplog):
    before = (job["run"] / "metrics.jsonl").read_text()
    data = ["--data", str(job["data"])]
    assert main(["train", "hybrid", *data, "--out", str(job["run"]), "--max-epochs", "2"]) == 0
    assert (job["run"] / "metrics.jsonl").read_text() == before


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on standard error with which a command is refused."""
    capsys.readouterr()
    assert main(list(arguments)) == 2
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1
    assert "Traceback" not in error
    return error


def test_results_are_not_overwritten_unasked(job, capsys):
    arguments = ["evaluate", str(job["run"]), "--data", str(job["data"]), "--out", str(job["results"])]
    assert "exists already" in refused(capsys, *arguments)


def test_a_checkpoint_of_another_dataset_is_refused(job, tiny_dataset_path, tmp_path, capsys):
    other = tmp_path / "run"
    shutil.copytree(job["run"], other, symlinks=True)
    for record in other.glob("step-*/dataset.json"):
        changed = json.loads(record.read_text()) | {"fingerprint": "0" * 64}
        record.write_text(json.dumps(changed))
        listed = json.loads((record.parent / "files.json").read_text())
        listed["dataset.json"] = {"bytes": record.stat().st_size, "xxh3": file_hash(record)}
        (record.parent / "files.json").write_text(json.dumps(listed))
    line = refused(capsys, "export", str(other), "--data", str(tiny_dataset_path), "--out", str(tmp_path / "out"))
    assert "was trained on" in line


def test_damaged_weights_are_refused(job, tmp_path, capsys):
    other = tmp_path / "run"
    shutil.copytree(job["run"], other, symlinks=True)
    for weights in other.glob("step-*/model.safetensors"):
        weights.write_bytes(weights.read_bytes()[:1000])
    data = ["--data", str(job["data"])]
    assert "damaged" in refused(capsys, "export", str(other), *data, "--out", str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian"], "perhaps you meant 'train'"),
        (["train", "hybird", "--data", "DATA"], "perhaps you meant 'hybrid'"),
        (["train", "hybrid"], "no --data given"),
        (["train", "id", "--data", "DATA", "--user-encoder", "sasrek"], "perhaps you meant 'sasrec'"),
        (["train", "hybrid", "--data", "nowhere"], "no dataset folder"),
        (["evaluate", "nowhere", "--data", "DATA", "--out", "nowhere/out"], "holds no checkpoint"),
        (["search", "nowhere", "--items", "x"], "nowhere"),
        (["recommend", "nowhere"], "nowhere"),
        (["ingest", "--features", "a=a.npy", "--features", "b=b.npy"], "--features is given 2 times"),
        (["train", "id", "--data", "DATA", "--split-quantile", "most"], "--split-quantile is 'most'; give a number"),
    ],
)
def test_wrong_arguments_get_one_line(job, capsys, arguments, said):
    assert said in refused(capsys, *(str(job["data"]) if word == "DATA" else word for word in arguments))


def test_a_reader_that_leaves_early_is_no_error():
    command = f"{sys.executable} -m mmrec --help | head -c 5"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "usage", "")


def test_help_is_there_without_arguments(capsys):
    assert main([]) == 0
    assert "mmrec COMMAND" in capsys.readouterr().out


def test_the_parts_of_a_model_are_chosen_by_name_and_set_by_options(job, tmp_path):
    run = tmp_path / "run"
    chosen = ["--user-encoder", "hstu", "--fusion", "sum"]
    settings = ["--model.user-encoder.num-blocks", "2", "--model.user-encoder.query-time", "known"]
    data = ["--data", str(job["data"])]
    assert main(["train", "id", *data, "--out", str(run), "--max-epochs", "1", *chosen, *settings]) == 0
    model = load_model((run / "best").resolve())
    assert (type(model.user_encoder).__name__, len(model.user_encoder.blocks)) == ("HSTU", 2)
    assert type(model.item_encoder.fusion).__name__ == "SumFusion"
    assert main(["evaluate", str(run), *data, "--out", str(tmp_path / "known"), "--no-baselines"]) == 0
    known, unknown = metrics(tmp_path / "known")["protocol"], metrics(job["results"])["protocol"]
    assert (known["query_time"], unknown["query_time"]) == ("known", "unknown")
    assert known["hash"] != unknown["hash"], "two protocols are never one row"
