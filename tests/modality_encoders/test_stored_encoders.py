"""What lies in a folder or in the hub's cache: how texts pool and begin, and files that are not what they should be."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmrec.errors import ConfigError
from mmrec.modality_encoders.foundation import FOUNDATION_ENCODERS
from mmrec.modality_encoders.foundation.homes import build_network
from tests.modality_encoders.tiny_networks import SHORT, make


def fit(dataset, modality: str, encoder: str, **settings):
    config = FOUNDATION_ENCODERS[modality](encoder=encoder, **SHORT[modality] | settings)
    return config.fit(dataset, modality, np.ones(dataset.num_items, dtype=bool))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of the hub, and what puts a folder into it under a name."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def add(folder: Path, name: str) -> Path:
        root = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        (root / "refs").mkdir(parents=True)
        (root / "refs" / "main").write_text("0" * 40)
        return shutil.copytree(folder, root / "snapshots" / ("0" * 40))

    return add


def test_an_encoder_in_the_hubs_cache_is_the_one_in_the_folder(folders, tiny_dataset, hub):
    hub(folders("gte"), "some/gte-base")
    found = fit(tiny_dataset, "text", "transformers:some/gte-base")
    assert found.architecture == fit(tiny_dataset, "text", f"path:{folders('gte')}").architecture
    assert found.architecture["pool"] == "cls", "as 1_Pooling/config.json says; its family would take the mean"
    assert found.prefix == ""


def test_a_name_that_is_not_in_the_cache_brings_the_nearest_that_is(folders, tiny_dataset, hub):
    hub(folders("gte"), "some/gte-base-v2")
    with pytest.raises(ConfigError, match=r"cannot load the configuration of .*perhaps you meant some/gte-base-v2"):
        fit(tiny_dataset, "text", "transformers:some/gte-bas-v2")


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("intfloat/e5-base-v2", "passage: "),
        ("intfloat/multilingual-e5-small", "passage: "),
        ("intfloat/multilingual-e5-large-instruct", ""),
        ("some/bert-e5-like-base", ""),
    ],
)
def test_e5_reads_passages(name, prefix, folders, tiny_dataset, hub):
    """Its files say nothing of it."""
    hub(folders("e5"), name)
    found = fit(tiny_dataset, "text", f"transformers:{name}")
    assert found.prefix == prefix
    plain = fit(tiny_dataset, "text", f"transformers:{name}", prefix="")
    assert found("thing").tolist() == plain(f"{prefix}thing").tolist()
    assert fit(tiny_dataset, "text", f"transformers:{name}", prefix="query: ").prefix == "query: "


@pytest.mark.parametrize(
    ("stored", "prefix"),
    [
        ({"prompts": {"query": "Instruct: find\nQuery:", "document": ""}, "default_prompt_name": None}, ""),
        ({"prompts": {"query": "search_query: ", "passage": "search_document: "}}, "search_document: "),
        ({"prompts": {"all": "text: "}, "default_prompt_name": "all"}, "text: "),
        ({"prompts": {}}, ""),
        ({"similarity_fn_name": "cosine"}, ""),
    ],
)
def test_the_prompt_of_documents_is_taken_from_the_files(stored, prefix, folders, tiny_dataset, tmp_path):
    folder = shutil.copytree(folders("qwen3"), tmp_path / "copy")
    (folder / "config_sentence_transformers.json").write_text(json.dumps(stored))
    found = fit(tiny_dataset, "text", f"path:{folder}")
    assert (found.prefix, found.architecture["pool"]) == (prefix, "last")
    found.save(tmp_path)
    assert type(found).load(tmp_path).prefix == prefix, "a checkpoint knows it"


@pytest.mark.parametrize(
    ("stored", "pool"),
    [
        ({"pooling_mode": "lasttoken"}, "last"),
        ({"pooling_mode": "mean", "embedding_dimension": 16}, "mean"),
        ({"pooling_mode_cls_token": False, "pooling_mode_lasttoken": True, "include_prompt": True}, "last"),
    ],
)
def test_pooling_is_read_as_sentence_transformers_writes_it(stored, pool, folders, tiny_dataset, tmp_path):
    folder = shutil.copytree(folders("gte"), tmp_path / "copy")
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(stored))
    assert fit(tiny_dataset, "text", f"path:{folder}").architecture["pool"] == pool
    assert fit(tiny_dataset, "text", f"path:{folder}", pool="cls").architecture["pool"] == "cls"


def test_poolings_and_layers_that_mmrec_has_not_are_refused_unless_another_is_asked_for(
    folders, tiny_dataset, tmp_path
):
    folder = shutil.copytree(folders("gte"), tmp_path / "copy")
    pooling = folder / "1_Pooling" / "config.json"
    for stored in ({"pooling_mode": "weightedmean"}, {"pooling_mode_max_tokens": True, "pooling_mode_cls_token": True}):
        pooling.write_text(json.dumps(stored))
        with pytest.raises(ConfigError, match="a pooling that mmrec has not; give pool mean, cls or last"):
            fit(tiny_dataset, "text", f"path:{folder}")
    pooling.write_text("{")
    with pytest.raises(ConfigError, match=r"1_Pooling.config\.json is damaged"):
        fit(tiny_dataset, "text", f"path:{folder}")
    modules = [{"path": "", "type": "a.Transformer"}, {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ConfigError, match="ends in layers of sentence-transformers"):
        fit(tiny_dataset, "text", f"path:{folder}")
    assert fit(tiny_dataset, "text", f"path:{folder}", pool="mean").architecture["pool"] == "mean"


def test_qwen3_reads_its_last_token_however_long_the_others_are(folders, tiny_dataset):
    """Padding is on the right, under a mask; its own tokenizer pads on the left."""
    _, preprocessing, module, _ = make("text", "transformers:qwen3", folders, tiny_dataset)
    texts = ["red", "red thing grey", "grey " * 14, ""]
    inputs = preprocessing.collate([preprocessing(text) for text in texts])
    assert inputs["mask"][0].tolist() == [True] * 3 + [False] * (inputs["mask"].shape[1] - 3)
    together = module.features(inputs)[0]
    disturbed = {"ids": torch.where(inputs["mask"], inputs["ids"], 7), "mask": inputs["mask"]}
    torch.testing.assert_close(module.features(disturbed)[0], together, atol=0, rtol=0)
    for number, text in enumerate(texts):
        alone = module.features(preprocessing.collate([preprocessing(text)]))[0][0]
        torch.testing.assert_close(alone, together[number], atol=1e-5, rtol=1e-5)
    longest = preprocessing("grey " * 100)
    assert len(longest) == 16
    assert longest[-1] == 3, "the end of the text stays where it is cut, for it is what is pooled"


def test_encoders_that_count_positions_behind_their_padding_read_two_tokens_less(folders, tiny_dataset, tmp_path):
    folder = shutil.copytree(folders("e5"), tmp_path / "copy")
    stored = json.loads((folder / "tokenizer_config.json").read_text()) | {"model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(stored))
    with pytest.raises(
        ConfigError, match=r"max_tokens is 40; .* reads at most 39"
    ):  # 40 positions, the first is padding
        fit(tiny_dataset, "text", f"path:{folder}", max_tokens=40)
    longest = fit(tiny_dataset, "text", f"path:{folder}", max_tokens=39)
    module = FOUNDATION_ENCODERS["text"](encoder=f"path:{folder}").build(8, longest)
    assert module.features(longest.collate([longest("red " * 99)]))[0].isfinite().all()


def test_settings_that_would_do_nothing_are_refused(folders, tiny_dataset):
    with pytest.raises(ConfigError, match="was trained to read just 16, padding and all"):
        fit(tiny_dataset, "text", f"path:{folders('siglip')}", max_tokens=8)
    for settings in ({"max_tokens": 8}, {"max_tokens": 0, "prefix": "a "}):
        with pytest.raises(ConfigError, match="reads texts as it was trained; leave max_tokens at 0"):
            fit(tiny_dataset, "text", f"path:{folders('open_clip')}", **settings)
    with pytest.raises(ConfigError, match="num_frames is -1; give at least 1"):
        fit(tiny_dataset, "video", f"path:{folders('timm_vit')}", num_frames=-1)


def changed(folders, tmp_path, name: str, file: str, *keys: str, value: object) -> str:
    """A copy of a folder with another value in its configuration."""
    folder = shutil.copytree(folders(name), tmp_path / f"{name}-{len(list(tmp_path.iterdir()))}")
    stored = json.loads((folder / file).read_text())
    part = stored
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    (folder / file).write_text(json.dumps(stored))
    return f"path:{folder}"


def test_weights_of_another_architecture_are_refused_by_every_home(folders, tiny_dataset, tmp_path):
    def refused(modality: str, encoder: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message) as caught:
            fit(tiny_dataset, modality, encoder)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 600

    bert = {"name": "bert", "file": "config.json"}
    refused("text", changed(folders, tmp_path, *bert.values(), "num_hidden_layers", value=1), "weights of more blocks")
    refused(
        "text", changed(folders, tmp_path, *bert.values(), "num_hidden_layers", value=3), "lack 16 of its network's"
    )
    wider = changed(folders, tmp_path, *bert.values(), "hidden_size", value=32)
    refused("text", wider, r"is \(16,\) in the weights and \(32,\) in the configuration")
    for key, value in (("depth", 3), ("depth", 1), ("embed_dim", 64)):
        encoder = changed(folders, tmp_path, "timm_vit", "config.json", "model_args", key, value=value)
        refused("image", encoder, "timm cannot load the weights .* of another architecture")
    for key, value in (("layers", 3), ("layers", 1), ("width", 48)):
        where = ("open_clip", "open_clip_config.json", "model_cfg", "vision_cfg", key)
        refused("image", changed(folders, tmp_path, *where, value=value), "open_clip cannot load the weights")


@pytest.mark.parametrize(
    ("modality", "name", "file"),
    [
        ("text", "bert", "model.safetensors"),
        ("image", "timm_vit", "model.safetensors"),
        ("image", "open_clip", "open_clip_model.safetensors"),
    ],
)
def test_files_that_are_damaged_or_cut_off(modality, name, file, folders, tiny_dataset, tmp_path):
    for number, damage in enumerate((lambda whole: b"garbage" * 100, lambda whole: whole[: len(whole) // 2])):
        folder = shutil.copytree(folders(name), tmp_path / str(number))
        (folder / file).write_bytes(damage((folder / file).read_bytes()))
        with pytest.raises(ConfigError, match="cannot load the weights") as caught:
            fit(tiny_dataset, modality, f"path:{folder}")
        assert "\n" not in str(caught.value)


def test_folders_that_are_none_of_a_home(folders, tiny_dataset, tmp_path):
    code = changed(folders, tmp_path, "bert", "config.json", "model_type", value="NewModel")
    stored = Path(code.removeprefix("path:")) / "config.json"
    remote = {"auto_map": {"AutoConfig": "configuration.NewConfig", "AutoModel": "modeling.NewModel"}}
    stored.write_text(json.dumps(json.loads(stored.read_text()) | remote))
    with pytest.raises(ConfigError, match="code that lies beside its weights, which mmrec does not run"):
        fit(tiny_dataset, "text", code)
    (tmp_path / "nothing").mkdir()
    (tmp_path / "nothing" / "open_clip_config.json").write_text('{"a": 1}')
    with pytest.raises(ConfigError, match="has no model_cfg, so it is none of open_clip's"):
        fit(tiny_dataset, "image", f"path:{tmp_path / 'nothing'}")
    for modality, name, message in (
        ("image", "bert", "cannot load the preprocessing .* Can't load image processor"),
        ("text", "dinov3", r"cannot load the tokenizer \(tokenizer.json\)"),
        ("audio", "bert", "cannot load the feature extractor"),
        ("text", "whisper", "is no text encoder"),
        ("text", "clap", "cannot load the tokenizer"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            fit(tiny_dataset, modality, f"path:{folders(name)}")
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"bert is a type of model, without weights; .* transformers:bert@random"):
        fit(tiny_dataset, "text", "transformers:bert")


def test_a_package_that_is_missing_is_named(folders, tiny_dataset, monkeypatch):
    encoder = f"path:{folders('open_clip')}"
    monkeypatch.setitem(sys.modules, "open_clip", None)
    for modality in ("image", "text"):
        with pytest.raises(
            ConfigError, match=r"encoders of open_clip need .* not installed; pip install open_clip_torch"
        ):
            fit(tiny_dataset, modality, encoder, **{"text": {"max_tokens": 0}}.get(modality, {}))
    with pytest.raises(ConfigError, match="pip install open_clip_torch"):  # of a checkpoint
        build_network({"framework": "open_clip"})


def test_a_tokenizer_whose_reader_is_not_installed_says_what_to_install(folders, tiny_dataset, monkeypatch):
    from transformers import AutoTokenizer

    def without(*args: object, **settings: object) -> None:
        raise ImportError("\nT5Tokenizer requires the SentencePiece library but it was not found.\nInstall it.")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", without)
    with pytest.raises(ConfigError, match=r"needs a package .*: T5Tokenizer requires the SentencePiece library"):
        fit(tiny_dataset, "text", f"path:{folders('bert')}")
