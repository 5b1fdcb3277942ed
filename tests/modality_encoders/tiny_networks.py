"""Tiny networks of each family, saved in the layout of their library, as a user would have them on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmrec.data.dataset import Dataset
from mmrec.modality_encoders.foundation import FOUNDATION_ENCODERS

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
PICTURE = {"image_size": 32, "patch_size": 8}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "green", "blue", "grey", "thing", "item", "a"]


def _tokenizer(folder: Path, **special: object) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=32, **names, **special)
    fast.save_pretrained(folder)


def _save(model, folder: Path, processor=None) -> None:
    torch.manual_seed(0)
    for parameter in model.parameters():  # zero-initialised tables would hide positions and queries
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)


def clip(folder: Path) -> None:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    text = SIZES | {"vocab_size": len(WORDS), "max_position_embeddings": 32, "eos_token_id": 3, "bos_token_id": 2}
    config = CLIPConfig(text_config=text | {"pad_token_id": 0}, vision_config=SIZES | PICTURE, projection_dim=8)
    shapes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    _save(CLIPModel(config), folder, CLIPImageProcessor(**shapes))
    _tokenizer(folder)


def siglip(folder: Path) -> None:
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    text = SIZES | {"vocab_size": len(WORDS), "max_position_embeddings": 16, "pad_token_id": 0}
    config = SiglipConfig(text_config=text, vision_config=SIZES | PICTURE)
    _save(SiglipModel(config), folder, SiglipImageProcessor(size={"height": 32, "width": 32}))
    _tokenizer(folder)


def siglip2(folder: Path) -> None:
    from transformers import Siglip2ImageProcessor, Siglip2VisionConfig, Siglip2VisionModel

    config = Siglip2VisionConfig(**SIZES, patch_size=8, num_patches=16)
    _save(Siglip2VisionModel(config), folder, Siglip2ImageProcessor(patch_size=8, max_num_patches=16))


def dinov3(folder: Path) -> None:
    from transformers import DINOv3ViTConfig, DINOv3ViTImageProcessor, DINOv3ViTModel

    config = DINOv3ViTConfig(**SIZES, **PICTURE, num_register_tokens=2)
    _save(DINOv3ViTModel(config), folder, DINOv3ViTImageProcessor(size={"height": 32, "width": 32}))


def bert(folder: Path) -> None:
    from transformers import BertConfig, BertModel

    _save(BertModel(BertConfig(**SIZES, vocab_size=len(WORDS), max_position_embeddings=32)), folder)
    _tokenizer(folder)


def modernbert(folder: Path) -> None:
    from transformers import ModernBertConfig, ModernBertModel

    special = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
    config = ModernBertConfig(**SIZES, vocab_size=len(WORDS), max_position_embeddings=32, **special)
    _save(ModernBertModel(config), folder)
    _tokenizer(folder)


def e5(folder: Path) -> None:
    from transformers import XLMRobertaConfig, XLMRobertaModel

    config = XLMRobertaConfig(**SIZES, vocab_size=len(WORDS), max_position_embeddings=40, pad_token_id=0)
    _save(XLMRobertaModel(config), folder)
    _tokenizer(folder)
    (folder / "1_Pooling").mkdir()
    stored = {"word_embedding_dimension": 16, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(stored))


def qwen3(folder: Path) -> None:
    from transformers import Qwen3Config, Qwen3Model

    config = Qwen3Config(**SIZES, vocab_size=len(WORDS), max_position_embeddings=32, num_key_value_heads=1, head_dim=8)
    _save(Qwen3Model(config), folder)
    _tokenizer(folder, padding_side="left")


def clap(folder: Path) -> None:
    from transformers import ClapAudioConfig, ClapAudioModelWithProjection, ClapFeatureExtractor

    swin = {"spec_size": 256, "num_mel_bins": 64, "window_size": 8, "depths": [1] * 4}
    sizes = {"patch_embeds_hidden_size": 8, "num_attention_heads": [1, 1, 2, 2], "hidden_size": 64}
    config = ClapAudioConfig(**swin, **sizes, patch_size=4, patch_stride=[4, 4], projection_dim=8)
    _save(ClapAudioModelWithProjection(config), folder, ClapFeatureExtractor(truncation="rand_trunc"))


def ast(folder: Path) -> None:
    from transformers import ASTConfig, ASTFeatureExtractor, ASTModel

    config = ASTConfig(**SIZES, max_length=128, num_mel_bins=32)
    _save(ASTModel(config), folder, ASTFeatureExtractor(max_length=128, num_mel_bins=32))


def whisper(folder: Path) -> None:
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

    sizes = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    special = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 1)
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "vocab_size": 8, "max_source_positions": 100}
    extractor = WhisperFeatureExtractor(feature_size=16, chunk_length=2)
    _save(WhisperModel(WhisperConfig(**sizes, **heads, **special, num_mel_bins=16)), folder, extractor)


def wav2vec2(folder: Path) -> None:
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    convolutions = {"conv_dim": (8, 8), "conv_stride": (20, 16), "conv_kernel": (20, 16), "num_feat_extract_layers": 2}
    positions = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    config = Wav2Vec2Config(**SIZES, **convolutions, **positions)
    _save(Wav2Vec2Model(config), folder, Wav2Vec2FeatureExtractor())


def wav2vec2_bert(folder: Path) -> None:
    from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2BertConfig, Wav2Vec2BertModel

    convolution = {"conv_depthwise_kernel_size": 3, "feature_projection_input_dim": 160}
    _save(Wav2Vec2BertModel(Wav2Vec2BertConfig(**SIZES, **convolution)), folder, SeamlessM4TFeatureExtractor())


def gte(folder: Path) -> None:
    from transformers import GteConfig, GteModel

    _save(GteModel(GteConfig(**SIZES, vocab_size=len(WORDS), max_position_embeddings=32)), folder)
    _tokenizer(folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))


def videomae(folder: Path) -> None:
    from transformers import VideoMAEConfig, VideoMAEImageProcessor, VideoMAEModel

    config = VideoMAEConfig(**SIZES, **PICTURE, num_frames=4)
    shapes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    _save(VideoMAEModel(config), folder, VideoMAEImageProcessor(**shapes))


def vjepa2(folder: Path) -> None:
    from transformers import VJEPA2Config, VJEPA2Model, VJEPA2VideoProcessor

    predictor = {"pred_hidden_size": 12, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1}
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2}
    config = VJEPA2Config(**sizes, **predictor, crop_size=32, patch_size=8, frames_per_clip=4)
    shapes = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}
    _save(VJEPA2Model(config), folder, VJEPA2VideoProcessor(**shapes))


def timm_vit(folder: Path) -> None:
    import timm

    sizes = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    network = timm.create_model("vit_base_patch16_224", pretrained=False, **sizes)
    network.pretrained_cfg = dict(network.pretrained_cfg, input_size=(3, 32, 32), crop_pct=1.0)
    timm.models.save_for_hf(network, folder, safe_serialization=True, model_args=sizes)


def timm_convnext(folder: Path) -> None:
    import timm

    torch.manual_seed(0)
    network = timm.create_model("test_convnext", pretrained=False)
    timm.models.save_for_hf(network, folder, safe_serialization=True)


def open_clip(folder: Path) -> None:
    from open_clip import CLIP
    from safetensors.torch import save_file

    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
    }
    torch.manual_seed(0)
    model = CLIP(**json.loads(json.dumps(config)))
    preprocessing = {"size": [32, 32], "mean": [0.4] * 3, "std": [0.3] * 3}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocessing}))
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )


WRITERS: dict[str, Callable[[Path], None]] = {
    writer.__name__: writer
    for writer in (
        clip, siglip, siglip2, dinov3, bert, modernbert, e5, qwen3, gte, clap, ast, whisper, wav2vec2,
        wav2vec2_bert, videomae, vjepa2,
        timm_vit, timm_convnext, open_clip,
    )
}  # fmt: skip

CASES = [
    ("image", "transformers:clip"), ("image", "transformers:siglip"), ("image", "transformers:siglip2"),
    ("image", "transformers:dinov3"), ("image", "timm:timm_vit"), ("image", "timm:timm_convnext"),
    ("image", "open_clip:open_clip"),
    ("text", "transformers:clip"), ("text", "transformers:siglip"), ("text", "transformers:bert"),
    ("text", "transformers:modernbert"), ("text", "transformers:e5"), ("text", "transformers:qwen3"),
    ("text", "transformers:gte"),
    ("text", "open_clip:open_clip"),
    ("audio", "transformers:clap"), ("audio", "transformers:ast"), ("audio", "transformers:whisper"),
    ("audio", "transformers:wav2vec2"), ("audio", "transformers:wav2vec2_bert"),
    ("video", "transformers:videomae"), ("video", "transformers:vjepa2"), ("video", "timm:timm_vit"),
    ("video", "open_clip:open_clip"), ("video", "transformers:dinov3"), ("video", "transformers:siglip2"),
]  # fmt: skip
"""Modality and encoder; the name behind the colon is that of a writer."""

DIM = 8
SHORT = {"text": {"max_tokens": 16}, "audio": {"duration_s": 1.0}, "image": {}, "video": {}}


def make(modality: str, encoder: str, folders: Callable[[str], Path], dataset: Dataset, **settings: Any) -> Any:
    """Configuration, fitted preprocessing, encoder with its weights, and collated inputs of all items."""
    framework, _, name = encoder.partition(":")
    short = {} if framework == "open_clip" else SHORT[modality]
    config = FOUNDATION_ENCODERS[modality](encoder=f"{framework}:{folders(name)}", **short | settings)
    preprocessing = config.fit(dataset, modality, np.ones(dataset.num_items, dtype=bool))
    torch.manual_seed(1)
    module = config.build(DIM, preprocessing)
    module.load_pretrained()
    items = np.flatnonzero(dataset.present(modality))
    inputs = preprocessing.collate([preprocessing(dataset.read(modality, int(item))) for item in items])
    return config, preprocessing, module.train(), inputs
