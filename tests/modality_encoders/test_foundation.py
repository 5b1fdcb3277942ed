"""Foundation encoders: each family from disk, with its own preprocessing; what of it learns, and what is kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmrec.errors import ConfigError
from mmrec.modality_encoders.foundation import FOUNDATION_ENCODERS
from tests.modality_encoders.tiny_networks import CASES, DIM, SHORT, make


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(case).replace(":", "-"))
def case(request):
    return request.param


def test_what_a_checkpoint_stores_rebuilds_the_encoder(case, folders, tiny_dataset, tmp_path):
    config, preprocessing, module, inputs = make(*case, folders, tiny_dataset)
    preprocessing.save(tmp_path)
    again = config.load_preprocessing(tmp_path)
    rebuilt = config.build(DIM, again)
    rebuilt.load_state_dict(module.state_dict())
    raw = tiny_dataset.read(case[0], int(np.flatnonzero(tiny_dataset.present(case[0]))[0]))
    torch.testing.assert_close(again.collate([again(raw)]), preprocessing.collate([preprocessing(raw)]))
    for expected, found in zip(module(inputs), rebuilt(inputs), strict=True):
        torch.testing.assert_close(found, expected)


def test_items_have_different_features_that_do_not_depend_on_each_other(case, folders, tiny_dataset):
    _, _, module, inputs = make(*case, folders, tiny_dataset)
    features, mask = module.features(inputs)
    assert features.isfinite().all()
    assert features[mask].std(0).max() > 1e-4, "the media differ, and so do their features"
    alone, alone_mask = module.features({key: value[:1] for key, value in inputs.items()})
    torch.testing.assert_close(alone[alone_mask], features[:1][mask[:1]], atol=1e-5, rtol=1e-4)


def test_the_hidden_state_below_the_top_block_gives_what_the_medium_gives(case, folders, tiny_dataset):
    modality, encoder = case
    _, preprocessing, module, inputs = make(modality, encoder, folders, tiny_dataset, tune="top:1")
    expected, mask = module.features(inputs)
    if module.keeps is None:
        assert case in (
            ("audio", "transformers:clap"),  # stages of changing shape cannot be split
            ("image", "timm:timm_convnext"),
            ("video", "transformers:siglip2"),  # frames in their own proportions bring more than a hidden state
        )
        return
    rows = module.keep(inputs)
    hidden = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    real = torch.arange(hidden.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
    kept = {"hidden": hidden, "hidden_mask": real}
    if preprocessing.brings_inputs:
        kept |= inputs
    found, found_mask = module.features(kept)
    torch.testing.assert_close(found_mask, mask)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    found[mask].square().sum().backward()
    through_kept = {
        name: parameter.grad.clone()
        for name, parameter in module.tower.named_parameters()
        if parameter.grad is not None
    }
    module.zero_grad()
    expected[mask].square().sum().backward()
    for name, parameter in module.tower.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(through_kept[name], parameter.grad, atol=1e-5, rtol=1e-4)
    assert through_kept


def picture() -> bytes:
    """A picture that is neither square nor of the network's size."""
    import io

    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (12, 15, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((77, 59), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("family", ["clip", "siglip", "dinov3"])
def test_pictures_are_prepared_and_encoded_as_transformers_does_it(family, folders, tiny_dataset):
    import io

    from PIL import Image
    from transformers import AutoImageProcessor, AutoModel

    _, preprocessing, module, _ = make("image", f"transformers:{family}", folders, tiny_dataset)
    raw = picture()
    reference = AutoImageProcessor.from_pretrained(folders(family))(
        Image.open(io.BytesIO(raw)).convert("RGB"), return_tensors="pt"
    )["pixel_values"]
    inputs = preprocessing.collate([preprocessing(raw)])
    prepared = preprocessing.transform.normalise(inputs["values"])
    assert (prepared - reference).abs().max() < 2.5 / 255 / min(preprocessing.transform.std), "two steps of 8 bits"
    model = AutoModel.from_pretrained(folders(family)).eval()
    network = getattr(model, "vision_model", model)
    with torch.no_grad():
        expected = network(prepared).pooler_output
    torch.testing.assert_close(module.features(inputs)[0][:, 0], expected, atol=1e-5, rtol=1e-5)


def test_pictures_are_prepared_as_timm_does_it(folders, tiny_dataset):
    import io

    import timm
    from PIL import Image

    _, preprocessing, module, _ = make("image", "timm:timm_vit", folders, tiny_dataset)
    network = timm.create_model(f"local-dir:{folders('timm_vit')}", pretrained=True, num_classes=0).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model=network))
    raw = picture()
    reference = transform(Image.open(io.BytesIO(raw)).convert("RGB"))[None]
    inputs = preprocessing.collate([preprocessing(raw)])
    prepared = preprocessing.transform.normalise(inputs["values"])
    assert (prepared - reference).abs().max() < 2.5 / 255 / min(preprocessing.transform.std)
    with torch.no_grad():
        expected = network(prepared)
    torch.testing.assert_close(module.features(inputs)[0][:, 0], expected, atol=1e-5, rtol=1e-5)


def test_open_clip_towers_encode_as_open_clip_does(folders, tiny_dataset):
    import io

    import open_clip
    from PIL import Image

    source = f"local-dir:{folders('open_clip')}"
    model, _, transform = open_clip.create_model_and_transforms(source)
    model.eval()
    _, preprocessing, module, _ = make("image", "open_clip:open_clip", folders, tiny_dataset)
    inputs = preprocessing.collate([preprocessing(picture())])
    prepared = preprocessing.transform.normalise(inputs["values"])
    reference = transform(Image.open(io.BytesIO(picture())))[None]
    assert (prepared - reference).abs().max() < 2.5 / 255 / 0.3
    with torch.no_grad():
        torch.testing.assert_close(module.features(inputs)[0][:, 0], model.encode_image(prepared), atol=1e-5, rtol=1e-5)
    _, preprocessing, module, _ = make("text", "open_clip:open_clip", folders, tiny_dataset)
    texts = ["a red thing", "something else entirely, and longer than sixteen units of its vocabulary can hold at once"]
    inputs = preprocessing.collate([preprocessing(text) for text in texts])
    with torch.no_grad():
        expected = model.encode_text(open_clip.get_tokenizer(source)(texts))
    torch.testing.assert_close(module.features(inputs)[0][:, 0], expected, atol=1e-5, rtol=1e-5)


def pooled_by(pool: str, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    if pool == "cls":
        return hidden[:, 0]
    if pool == "last":
        return torch.stack([row[real][-1] for row, real in zip(hidden, mask.bool(), strict=True)])
    return torch.stack([row[real].mean(0) for row, real in zip(hidden, mask.bool(), strict=True)])


@pytest.mark.parametrize(
    ("family", "pool"), [("bert", "mean"), ("modernbert", "mean"), ("e5", "mean"), ("gte", "cls"), ("qwen3", "last")]
)
def test_texts_are_encoded_as_transformers_does_it_and_pooled_as_the_family_does(family, pool, folders, tiny_dataset):
    """Qwen3's tokenizer pads on the left, mmrec on the right: to a causal network that must not matter."""
    from transformers import AutoModel, AutoTokenizer

    _, preprocessing, module, _ = make("text", f"transformers:{family}", folders, tiny_dataset)
    texts = ["red thing", "a grey thing green blue thing"]
    reference = AutoTokenizer.from_pretrained(folders(family))(texts, padding=True, return_tensors="pt")
    reference.pop("token_type_ids", None)
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(folders(family)).eval()(**reference).last_hidden_state
    inputs = preprocessing.collate([preprocessing(text) for text in texts])
    found = module.features(inputs)[0][:, 0]
    torch.testing.assert_close(found, pooled_by(pool, hidden, reference["attention_mask"]), atol=1e-5, rtol=1e-5)


def test_texts_are_cut_where_the_network_ends_unless_told_otherwise(folders, tiny_dataset):
    config = FOUNDATION_ENCODERS["text"](encoder=f"path:{folders('bert')}")
    preprocessing = config.fit(tiny_dataset, "text", np.ones(tiny_dataset.num_items, dtype=bool))
    assert len(preprocessing("red thing " * 50)) == 32, "the network has 32 positions"


def test_siglip_reads_texts_with_their_padding_in_sight(folders, tiny_dataset):
    from transformers import AutoModel

    _, preprocessing, module, _ = make("text", "transformers:siglip", folders, tiny_dataset)
    inputs = preprocessing.collate([preprocessing("red thing")])
    assert inputs["ids"].shape == (1, 16)
    with torch.no_grad():
        expected = AutoModel.from_pretrained(folders("siglip")).eval().text_model(inputs["ids"]).pooler_output
    torch.testing.assert_close(module.features(inputs)[0][:, 0], expected, atol=1e-5, rtol=1e-5)


def test_texts_of_many_lengths_are_read_in_groups_of_similar_length(folders, tiny_dataset):
    """More texts than a group holds: the same features as one by one, in the order of the texts."""
    for tune in ("frozen", "top:1"):
        _, preprocessing, module, _ = make("text", "transformers:bert", folders, tiny_dataset, tune=tune)
        texts = [" ".join(["red", "thing", "grey"][: 1 + n % 3] * (1 + n % 4)) for n in range(70)]
        inputs = preprocessing.collate([preprocessing(text) for text in texts])
        rows = module.keep(inputs)
        together, _ = module.features(inputs)
        for n in (0, 1, 33, 69):
            alone = preprocessing.collate([preprocessing(texts[n])])
            torch.testing.assert_close(together[n], module.features(alone)[0][0], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(rows[n], module.keep(alone)[0], atol=1e-5, rtol=1e-5)


def test_a_prefix_is_set_before_each_text(folders, tiny_dataset):
    _, preprocessing, _, _ = make("text", "transformers:bert", folders, tiny_dataset, prefix="grey ")
    _, plain, _, _ = make("text", "transformers:bert", folders, tiny_dataset)
    assert preprocessing("thing").tolist() == plain("grey thing").tolist() != plain("thing").tolist()


@pytest.mark.parametrize("family", ["ast", "whisper", "wav2vec2"])
def test_sounds_are_encoded_as_transformers_does_it_at_any_rate(family, folders, tiny_dataset):
    import io

    import soundfile
    from transformers import AutoFeatureExtractor, AutoModel

    _, preprocessing, module, _ = make("audio", f"transformers:{family}", folders, tiny_dataset)
    extractor = AutoFeatureExtractor.from_pretrained(folders(family))
    model = AutoModel.from_pretrained(folders(family)).eval()

    def tone(rate: int, channels: int) -> bytes:
        samples = 0.3 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
        buffer = io.BytesIO()
        soundfile.write(buffer, np.repeat(samples[:, None], channels, 1), rate, format="WAV", subtype="FLOAT")
        return buffer.getvalue()

    samples = (0.3 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)).astype(np.float32)
    inputs = extractor(samples, sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        output = (
            getattr(model, "encoder", model)(inputs[extractor.model_input_names[0]])
            if family == "whisper"
            else model(**inputs)
        )
    heard = 50 if family == "whisper" else None  # of 100 positions in 2 s; the others are of padding
    expected = output.pooler_output if family == "ast" else output.last_hidden_state[:, :heard].mean(1)
    found = module.features(preprocessing.collate([preprocessing(tone(16_000, 1))]))[0][:, 0]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    other = module.features(preprocessing.collate([preprocessing(tone(48_000, 2))]))[0][:, 0]
    assert torch.cosine_similarity(found, other).item() > 0.99, "the same tone, in stereo and at another rate"


def without_weights(folder, target, part: str) -> str:
    """A copy of a folder whose weights lack those with ``part`` in their names."""
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, target)
    weights = load_file(target / "model.safetensors")
    kept = {key: value for key, value in weights.items() if part not in key}
    assert len(kept) < len(weights)
    save_file(kept, target / "model.safetensors", metadata={"format": "pt"})
    return f"path:{target}"


@pytest.mark.parametrize(
    ("modality", "family", "part"),
    [
        ("image", "clip", "vision_model.embeddings.patch_embedding"),
        ("image", "clip", "vision_model.post_layernorm"),
        ("audio", "ast", "patch_embeddings.projection"),
    ],
)
def test_weights_that_the_network_reads_may_not_be_missing(modality, family, part, folders, tiny_dataset, tmp_path):
    encoder = without_weights(folders(family), tmp_path / "copy", part)
    config = FOUNDATION_ENCODERS[modality](encoder=encoder, **SHORT[modality])
    with pytest.raises(ConfigError, match="they are of another one"):
        config.fit(tiny_dataset, modality, np.ones(tiny_dataset.num_items, dtype=bool))


def test_weights_that_nothing_reads_may_be_missing(folders, tiny_dataset, tmp_path):
    everything = np.ones(tiny_dataset.num_items, dtype=bool)
    for modality, family, part in (("image", "clip", "text_model"), ("text", "bert", "pooler")):
        encoder = without_weights(folders(family), tmp_path / family, part)
        FOUNDATION_ENCODERS[modality](encoder=encoder).fit(tiny_dataset, modality, everything)
    clip = without_weights(folders("clip"), tmp_path / "other", "text_model")
    with pytest.raises(ConfigError, match="they are of another one"):
        FOUNDATION_ENCODERS["text"](encoder=clip).fit(tiny_dataset, "text", everything)


def test_a_network_with_statistics_of_batches_is_kept_like_any_other(tiny_dataset):
    """Their counters are numbers without a dimension."""
    config = FOUNDATION_ENCODERS["image"](encoder="timm:test_resnet@random")
    preprocessing = config.fit(tiny_dataset, "image", np.ones(tiny_dataset.num_items, dtype=bool))
    module = config.build(DIM, preprocessing).train()
    assert module.cache_key() == module.cache_key()
    rows = module.keep(preprocessing.blank(2))
    torch.testing.assert_close(torch.stack(rows), module.features(preprocessing.blank(2))[0])


def learning(module) -> set[str]:
    return {name for name, parameter in module.tower.named_parameters() if parameter.requires_grad}


def kept_for_the_backward_pass(module, inputs) -> tuple[torch.Tensor, int]:
    """Features, and the bytes that autograd keeps of what the network computes, weights apart."""
    weights, kept = {p.untyped_storage().data_ptr() for p in module.parameters()}, {}

    def keep(value: torch.Tensor) -> torch.Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = value, storage.nbytes()  # the value, so that no other gets its place in memory
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        features, _ = module.features(inputs)
    return features, sum(num_bytes for _, num_bytes in kept.values())


@pytest.mark.parametrize(("modality", "encoder"), [("text", "transformers:bert"), ("image", "timm:timm_vit")])
def test_what_is_frozen_costs_nothing_in_the_backward_pass(modality, encoder, folders, tiny_dataset):
    kept = {}
    for tune in ("frozen", "top:1", "lora:2", "all"):
        _, _, module, inputs = make(modality, encoder, folders, tiny_dataset, tune=tune)
        names = learning(module)
        features, kept[tune] = kept_for_the_backward_pass(module, inputs)
        assert features.requires_grad == bool(names) == (tune != "frozen")
        assert {name for name, _ in module.tower.named_parameters() if "lora_" in name} == (
            names if tune == "lora:2" else set()
        )
        if names:
            features.square().sum().backward()
        given = {name for name, parameter in module.tower.named_parameters() if parameter.grad is not None}
        assert given <= names, "no gradient is computed, and no memory taken, for what is frozen"
    assert kept["frozen"] == 0
    # One of two blocks; a little more than half, because what stands above the blocks learns too.
    assert 0 < kept["top:1"] < 0.7 * kept["all"]


def test_nothing_is_computed_for_gradients_below_the_first_block_that_learns(folders, tiny_dataset):
    _, _, module, inputs = make("text", "transformers:bert", folders, tiny_dataset, tune="top:1")
    names = learning(module)
    assert names
    assert all("layer.1." in name for name in names), "the upper of two blocks, and nothing below"
    with_gradient = {}

    def note(name: str):
        def hook(part, args, output) -> None:
            with_gradient[name] = getattr(output, "requires_grad", False)

        return hook

    for name, part in module.tower.named_modules():
        part.register_forward_hook(note(name))
    module.features(inputs)
    assert [with_gradient[name] for name in with_gradient if name.endswith(("layer.0", "layer.1"))] == [False, True]


def test_the_optimizer_holds_what_learns_at_its_own_rate_and_nothing_else(tiny_dataset_path, tmp_path):
    import dataclasses

    from mmrec.training import preset
    from mmrec.training.trainer import Trainer

    image = FOUNDATION_ENCODERS["image"](encoder="timm:test_vit@random", tune="top:2", layer_decay=0.5)
    config = preset("content", tiny_dataset_path, encoders={"image": image})
    settings = {"out": tmp_path / "run", "rest_epochs": 0, "tower_batch_size": 8, "warmup_steps": 0, "max_steps": 1}
    trainer = Trainer(dataclasses.replace(config, **settings, trackers=()))
    names = {id(value): name for name, value in trainer.recommender.named_parameters()}
    held = {names[id(p)]: group for group in trainer.optimizer.param_groups for p in group["params"]}
    tower = "item_encoder.encoders.image.tower.network."
    assert not [name for name in held if name.startswith((f"{tower}patch_embed", f"{tower}blocks.3."))]
    before = {name: value.detach().clone() for name, value in trainer.recommender.named_parameters()}
    trainer.fit()
    rates = {name: group["lr"] / (config.learning_rate * config.tower_rate) for name, group in held.items()}
    assert {rates[name] for name in rates if name.startswith(f"{tower}blocks.5.")} == {1.0}
    assert {rates[name] for name in rates if name.startswith(f"{tower}blocks.4.")} == {0.5}
    for name, value in trainer.recommender.named_parameters():
        if name.startswith(tower):
            assert torch.equal(value, before[name]) == (name not in held), name
    state = trainer.optimizer.state
    assert len(state) <= len(held), "moments of what learns alone"


def test_adapters_start_as_nothing_and_learn_alone(folders, tiny_dataset):
    for modality, encoder in (
        ("text", "transformers:bert"),
        ("image", "timm:timm_vit"),
        ("image", "open_clip:open_clip"),
    ):
        _, _, plain, inputs = make(modality, encoder, folders, tiny_dataset)
        _, _, module, _ = make(modality, encoder, folders, tiny_dataset, tune="lora:2")
        torch.testing.assert_close(module.features(inputs)[0], plain.features(inputs)[0])
        names = learning(module)
        assert names
        assert all("lora_" in name for name in names)
        module.features(inputs)[0].square().sum().backward()
        assert any(
            parameter.grad.abs().sum() > 0 for parameter in module.tower.parameters() if parameter.grad is not None
        )


def test_lower_blocks_learn_slower(folders, tiny_dataset):
    _, _, module, _ = make("text", "transformers:bert", folders, tiny_dataset, tune="all", layer_decay=0.5)
    rates = {
        name: share
        for name, parameter in module.tower.named_parameters()
        for other, share in module.tower_parameters()
        if other is parameter
    }
    assert {share for name, share in rates.items() if "layer.1." in name} == {1.0}
    assert {share for name, share in rates.items() if "layer.0." in name} == {0.5}
    assert {share for name, share in rates.items() if "embeddings." in name} == {0.25}


def test_what_learns_are_the_parameters_that_the_network_has_now(folders, tiny_dataset):
    """Sharding puts other parameters in the place of those that were built; their gradients are what counts."""
    _, _, module, inputs = make("text", "transformers:bert", folders, tiny_dataset, tune="top:1")
    built = list(module.tower_parameters())
    for name, parameter in list(module.tower.named_parameters()):
        owner, _, last = name.rpartition(".")
        setattr(
            module.tower.get_submodule(owner), last, torch.nn.Parameter(parameter.detach(), parameter.requires_grad)
        )
    now = list(module.tower_parameters())
    assert [share for _, share in now] == [share for _, share in built]
    assert not {id(parameter) for parameter, _ in now} & {id(parameter) for parameter, _ in built}
    module.features(inputs)[0].square().sum().backward()
    assert all(parameter.grad is not None for parameter, _ in now)


def test_checkpointed_blocks_have_the_same_gradients(folders, tiny_dataset):
    gradients = []
    for activation_checkpointing in (False, True):
        settings = {"tune": "all", "activation_checkpointing": activation_checkpointing}
        _, _, module, inputs = make("image", "timm:timm_vit", folders, tiny_dataset, **settings)
        module.features(inputs)[0].square().sum().backward()
        gradients.append([parameter.grad for parameter, _ in module.tower_parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("stance", ["force_eager", pytest.param("default", marks=pytest.mark.slow)])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_compiled_blocks_give_what_they_gave_from_media_and_from_kept_hidden_states(
    folders, tiny_dataset, checkpointed, stance
):
    """The stance "force_eager" runs the same calls without the compiler, which takes half a minute."""
    settings = {"tune": "top:1", "activation_checkpointing": checkpointed}
    _, _, module, inputs = make("image", "timm:timm_vit", folders, tiny_dataset, **settings)

    def everything() -> tuple[torch.Tensor, ...]:
        hidden = torch.stack(module.keep(inputs))
        kept = {"hidden": hidden, "hidden_mask": torch.ones(hidden.shape[:2], dtype=torch.bool)}
        media, above = module.features(inputs)[0], module.features(kept)[0]
        module.zero_grad()
        (media + above).square().mean().backward()
        return hidden, media, above, *(parameter.grad for parameter, _ in module.tower_parameters())

    expected = everything()
    module.compile_network()
    with torch.compiler.set_stance(stance):
        for _ in range(2):  # the second time with what the first has compiled
            torch.testing.assert_close(everything(), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["timm:test_vit", "timm:test_resnet", "transformers:bert", "torchvision:nothing"])
def test_a_name_alone_with_random_weights(name, tiny_dataset):
    """A network whose normalisation counts over the batch is welcome here: its statistics stay what they are."""
    modality = {"transformers:bert": "text", "torchvision:nothing": "video"}.get(name, "image")
    config = FOUNDATION_ENCODERS[modality](encoder=f"{name}@random")
    everything = np.ones(tiny_dataset.num_items, dtype=bool)
    if name.startswith("timm"):
        preprocessing = config.fit(tiny_dataset, modality, everything)
        module = config.build(DIM, preprocessing)
        features, _ = module.features(preprocessing.blank(2))
        assert features.shape == (2, 1, preprocessing.architecture["width"])
        return
    with pytest.raises(ConfigError):
        config.fit(tiny_dataset, modality, everything)


ERRORS = [
    ("image", "vit_base", {}, "is no name; write FRAMEWORK:NAME"),
    ("image", "tim:vit_base_patch16_224", {}, "unknown framework of image encoders 'tim'; perhaps you meant 'timm'"),
    ("text", "timm:vit_base_patch16_224", {}, "unknown framework of text encoders 'timm'"),
    (
        "image",
        "timm:vit_base_patch16_dinov33",
        {},
        "timm has no network .*; perhaps you meant timm:vit_base_patch16_dinov3",
    ),
    ("image", "timm:vit_base_patch16_224.no_such", {}, "timm cannot load"),
    ("image", "open_clip:ViT-B-33/openai", {}, "open_clip has no model 'ViT-B-33'; perhaps you meant ViT-B-32"),
    ("image", "open_clip:ViT-B-32/openia", {}, "open_clip has no weights 'openia' for ViT-B-32; it has"),
    ("text", "open_clip:ViT-B-16-SigLIP@random", {}, "open_clip cannot load .*offline, only the hub's local cache"),
    ("text", "transformers:some/encoder", {}, "offline, only the hub's local cache is read"),
    ("text", "transformers:brt@random", {}, "unknown model type of transformers 'brt'; perhaps you meant 'bert'"),
    ("video", "torchvision:mvit_v3", {}, "unknown video network of torchvision 'mvit_v3'"),
    ("image", "path:/nowhere", {}, "names a folder that does not exist"),
    ("image", "timm:test_vit@random", {"tune": "top"}, "tune is 'top'; give frozen, top:K"),
    ("image", "timm:test_vit@random", {"tune": "top:99"}, "tune is top:99, but the network has 6 blocks"),
    ("image", "timm:test_vit@random", {"pool": "cls"}, "networks of timm pool by themselves"),
]


@pytest.mark.parametrize(("modality", "encoder", "settings", "message"), ERRORS)
def test_what_cannot_be_is_one_line_that_says_what_can(modality, encoder, settings, message, tiny_dataset):
    config = FOUNDATION_ENCODERS[modality](encoder=encoder, **settings)
    with pytest.raises(ConfigError, match=message) as caught:
        config.fit(tiny_dataset, modality, np.ones(tiny_dataset.num_items, dtype=bool))
    assert "\n" not in str(caught.value)


def test_folders_that_lack_something_or_hold_something_else(folders, tiny_dataset, tmp_path):
    import shutil

    def fit(modality: str, encoder: str, **settings):
        config = FOUNDATION_ENCODERS[modality](encoder=encoder, **SHORT[modality] | settings)
        return config.fit(tiny_dataset, modality, np.ones(tiny_dataset.num_items, dtype=bool))

    def copy(name: str, without: str = "") -> str:
        target = tmp_path / f"{name}-{without}"
        shutil.copytree(folders(name), target)
        if without:
            (target / without).unlink()
        return str(target)

    with pytest.raises(ConfigError, match="cannot load the weights"):
        fit("text", f"path:{copy('bert', 'model.safetensors')}")
    with pytest.raises(ConfigError, match="cannot load the tokenizer"):
        fit("text", f"path:{copy('bert', 'tokenizer.json')}")
    with pytest.raises(ConfigError, match="cannot load the preprocessing"):
        fit("image", f"transformers:{copy('dinov3', 'preprocessor_config.json')}")
    with pytest.raises(ConfigError, match="open_clip cannot load"):
        fit("image", f"path:{copy('open_clip', 'open_clip_model.safetensors')}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"has neither config\.json nor open_clip_config\.json"):
        fit("image", f"path:{tmp_path / 'empty'}")
    with pytest.raises(ConfigError, match="which has no text encoders"):
        fit("text", f"path:{folders('timm_vit')}")
    with pytest.raises(ConfigError, match="it encodes video, not image"):
        fit("image", f"path:{folders('videomae')}")
    with pytest.raises(ConfigError, match=r"max_tokens is 64; .* reads at most 32"):
        fit("text", f"path:{folders('bert')}", max_tokens=64)
    mixed = tmp_path / "mixed"
    shutil.copytree(folders("bert"), mixed)
    shutil.copy(folders("qwen3") / "model.safetensors", mixed / "model.safetensors")
    with pytest.raises(ConfigError, match="they are of another one"):
        fit("text", f"path:{mixed}")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["s3d", "mvit_v2_s", "swin3d_t"])
def test_video_networks_of_torchvision_with_the_preprocessing_of_their_weights(name, tiny_dataset):
    config = FOUNDATION_ENCODERS["video"](encoder=f"torchvision:{name}@random", tune="top:1")
    preprocessing = config.fit(tiny_dataset, "video", np.ones(tiny_dataset.num_items, dtype=bool))
    assert preprocessing.transform.height >= 224
    module = config.build(DIM, preprocessing)
    clips = np.flatnonzero(tiny_dataset.present("video"))[:2]
    inputs = preprocessing.collate([preprocessing(tiny_dataset.read("video", int(clip))) for clip in clips])
    features, mask = module.features(inputs)
    assert features.shape == (2, 1, preprocessing.architecture["width"])
    assert mask.all()
    assert not torch.allclose(features[0], features[1])
    assert learning(module)
