"""Published checkpoints of every family that reads images, and the classes of transformers that process them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Case(NamedTuple):
    """A published checkpoint: what of its config.json and preprocessor_config.json matters."""

    config: Mapping[str, Any]
    images: str
    """The module and class of its image processor."""
    text: str
    """The same of its processor."""
    options: Mapping[str, Any] = {}
    """What its image processor is made with."""
    attributes: Mapping[str, Any] = {}
    """What its processor has learnt from elsewhere."""
    processor: Mapping[str, Any] = {}
    """What preprocessor_config.json says otherwise than `images_of` assumes."""


def vision(family: str, **more: Any) -> dict[str, Any]:
    """A config.json with a vision_config."""
    top = more.pop("top", {})
    return {"model_type": family, "vision_config": more, **top}


_QWEN = "qwen2_vl.image_processing_qwen2_vl.Qwen2VLImageProcessor"
_QWEN_TEXT = "qwen2_vl.processing_qwen2_vl.Qwen2VLProcessor"
_PIXTRAL = "pixtral.image_processing_pixtral.PixtralImageProcessor"
_PIXTRAL_TEXT = "pixtral.processing_pixtral.PixtralProcessor"
_NEXT = "llava_next.image_processing_llava_next.LlavaNextImageProcessor"
_NEXT_TEXT = "llava_next.processing_llava_next.LlavaNextProcessor"
_SIGLIP = "siglip.image_processing_siglip.SiglipImageProcessor"
_GOT = "got_ocr2.image_processing_got_ocr2.GotOcr2ImageProcessor"
_GEMMA3 = "gemma3.image_processing_gemma3.Gemma3ImageProcessor"
_GEMMA3_TEXT = "gemma3.processing_gemma3.Gemma3Processor"
_IDEFICS = "idefics3.image_processing_idefics3.Idefics3ImageProcessor"
_IDEFICS_TEXT = "idefics3.processing_idefics3.Idefics3Processor"
_GLM = "glm4v.image_processing_glm4v.Glm4vImageProcessor"
_GLM_TEXT = "glm4v.processing_glm4v.Glm4vProcessor"
_PAN = {"do_pan_and_scan": True, "pan_and_scan_min_crop_size": 256, "pan_and_scan_max_num_crops": 4,
        "pan_and_scan_min_ratio_to_activate": 1.2}  # fmt: skip


def _square(side: int) -> dict[str, dict[str, int]]:
    return {"size": {"height": side, "width": side}}


def _edges(least: int, most: int) -> dict[str, dict[str, int]]:
    return {"size": {"shortest_edge": least, "longest_edge": most}}


def _gemma3(**more: Any) -> Case:
    sequence = "\n\n<b>" + "<i>" * 256 + "<e>\n\n"
    return Case(
        vision("gemma3", image_size=896, patch_size=14, top={"mm_tokens_per_image": 256}), _GEMMA3, _GEMMA3_TEXT,
        {**_square(896), **more}, {"full_image_sequence": sequence}, more,
    )  # fmt: skip


def _idefics3(model_type: str, tile: int, patch: int, scale: int) -> Case:
    config = vision(model_type, image_size=tile, patch_size=patch, top={"scale_factor": scale})
    name, family = ("SmolVLM", "smolvlm") if model_type == "smolvlm" else ("Idefics3", "idefics3")
    return Case(
        config, f"{family}.image_processing_{family}.{name}ImageProcessor",
        f"{family}.processing_{family}.{name}Processor",
        {"size": {"longest_edge": 4 * tile}, "max_image_size": {"longest_edge": tile}, "return_row_col_info": True},
        {"fake_image_token": "<f>", "global_image_tag": "<g>", "global_image_token": "<g>",
         "image_seq_len": (tile // patch // scale) ** 2},
    )  # fmt: skip


_BREAKS = {"image_break_token": "<n>", "image_end_token": "<e>"}
_CLIP = {"model_type": "clip_vision_model", "image_size": 336, "patch_size": 14}
CASES = {
    "qwen2_vl": Case(
        vision("qwen2_vl", patch_size=14, spatial_merge_size=2, temporal_patch_size=2), _QWEN, _QWEN_TEXT,
        _edges(3136, 12845056),
    ),
    "qwen2_5_vl, the class's limits": Case(
        vision("qwen2_5_vl", patch_size=14), _QWEN, _QWEN_TEXT, processor={"max_pixels": 28 * 28 * 1280}
    ),
    "qwen3_vl": Case(
        vision("qwen3_vl", patch_size=16), _QWEN, "qwen3_vl.processing_qwen3_vl.Qwen3VLProcessor",
        {**_edges(65536, 16777216), "patch_size": 16},
    ),
    "qwen3_5": Case(vision("qwen3_5", patch_size=16), _QWEN, _QWEN_TEXT, {**_edges(65536, 16777216), "patch_size": 16}),
    "glm4v": Case(vision("glm4v", patch_size=14), _GLM, _GLM_TEXT),
    "glm46v": Case(
        vision("glm46v", patch_size=14), "glm46v.image_processing_glm46v.Glm46VImageProcessor",
        "glm46v.processing_glm46v.Glm46VProcessor",
    ),
    "ernie4_5_vl_moe": Case(
        vision("ernie4_5_vl_moe", patch_size=14),
        "ernie4_5_vl_moe.image_processing_ernie4_5_vl_moe.Ernie4_5_VLMoeImageProcessor",
        "ernie4_5_vl_moe.processing_ernie4_5_vl_moe.Ernie4_5_VLMoeProcessor",
    ),
    "kimi_k25": Case(
        vision("kimi_k25", patch_size=14, merge_kernel_size=[2, 2]),
        "kimi_k25.image_processing_kimi_k25.Kimi_K25ImageProcessor", "kimi_k25.processing_kimi_k25.Kimi_K25Processor",
    ),
    "muse_glimmer": Case(
        vision("muse_glimmer"), "muse_glimmer.image_processing_muse_glimmer.MuseGlimmerImageProcessor",
        "muse_glimmer.processing_muse_glimmer.MuseGlimmerProcessor",
        attributes={"image_start_token": "<b>", "image_end_token": "<e>"},
    ),
    "gemma3": _gemma3(),
    "gemma3, pan and scan": _gemma3(**_PAN),
    "gemma3n": Case(
        vision("gemma3n"), _SIGLIP, "gemma3n.processing_gemma3n.Gemma3nProcessor", _square(768),
        {"full_image_sequence": "\n\n<b>" + "<i>" * 256 + "<e>\n\n"},
    ),
    "gemma4": Case(
        vision("gemma4", patch_size=16, pooling_kernel_size=3), "gemma4.image_processing_gemma4.Gemma4ImageProcessor",
        "gemma4.processing_gemma4.Gemma4Processor", attributes={"boi_token": "<b>", "eoi_token": "<e>"},
    ),
    "gemma4_unified, 1,120 tokens": Case(
        vision("gemma4_unified", patch_size=16, pooling_kernel_size=3),
        "gemma4_unified.image_processing_gemma4_unified.Gemma4UnifiedImageProcessor",
        "gemma4_unified.processing_gemma4_unified.Gemma4UnifiedProcessor", {"max_soft_tokens": 1120},
        {"boi_token": "<b>", "eoi_token": "<e>"}, {"max_soft_tokens": 1120},
    ),
    "mllama": Case(
        vision("mllama", image_size=560, patch_size=14, max_num_tiles=4),
        "mllama.image_processing_mllama.MllamaImageProcessor", "mllama.processing_mllama.MllamaProcessor", _square(560),
    ),
    "llama4": Case(
        vision("llama4", image_size=336, patch_size=14, pixel_shuffle_ratio=0.5),
        "llama4.image_processing_llama4.Llama4ImageProcessor", "llama4.processing_llama4.Llama4Processor",
        {"do_rescale": True, "do_normalize": True}, {"patch_size": 14, "downsample_ratio": 4},
    ),
    "mistral3": Case(
        vision("mistral3", model_type="pixtral", image_size=1540, patch_size=14, top={"spatial_merge_size": 2}),
        _PIXTRAL, _PIXTRAL_TEXT, {"size": {"longest_edge": 1540}, "patch_size": 28},
        {"patch_size": 14, "spatial_merge_size": 2, **_BREAKS},
    ),
    "pixtral-12b": Case(
        vision("llava", model_type="pixtral", image_size=1024, patch_size=16), _PIXTRAL, _PIXTRAL_TEXT,
        attributes={"patch_size": 16, "spatial_merge_size": 1, **_BREAKS},
    ),
    "lighton_ocr": Case(
        vision("lighton_ocr", model_type="pixtral", image_size=1540, patch_size=14, top={"spatial_merge_size": 2}),
        _PIXTRAL, "lighton_ocr.processing_lighton_ocr.LightOnOcrProcessor",
        {"size": {"longest_edge": 1540}, "patch_size": 14}, {"effective_patch_size": 28},
    ),
    "llava": Case(
        vision("llava", **_CLIP), "llava.image_processing_llava.LlavaImageProcessor",
        "llava.processing_llava.LlavaProcessor",
        {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}},
        {"patch_size": 14, "num_additional_image_tokens": 1, "vision_feature_select_strategy": "default"},
    ),
    "llava_next": Case(
        vision("llava_next", **_CLIP), _NEXT, _NEXT_TEXT,
        {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}},
        {"patch_size": 14, "num_additional_image_tokens": 1, "vision_feature_select_strategy": "default"},
    ),
    "llava_onevision": Case(
        vision("llava_onevision", image_size=384, patch_size=14),
        "llava_onevision.image_processing_llava_onevision.LlavaOnevisionImageProcessor",
        "llava_onevision.processing_llava_onevision.LlavaOnevisionProcessor",
        attributes={"num_image_tokens": 729, "vision_feature_select_strategy": "full",
                    "vision_aspect_ratio": "anyres_max_9"},
    ),
    "internvl": Case(
        vision("internvl", image_size=[448, 448], patch_size=[14, 14]), _GOT,
        "internvl.processing_internvl.InternVLProcessor", {**_square(448), "crop_to_patches": True},
        {"start_image_token": "<b>", "end_image_token": "<e>", "image_seq_length": 256},
    ),
    "aya_vision": Case(
        vision("aya_vision", image_size=364, patch_size=14, top={"downsample_factor": 2}), _GOT,
        "aya_vision.processing_aya_vision.AyaVisionProcessor", {**_square(364), "crop_to_patches": True},
        {"start_of_img_token": "<b>", "end_of_img_token": "<e>", "tile_token": "<t>", "tile_global_token": "<g>",
         "img_patch_token": "<i>", "img_size": 364, "patch_size": 28},
    ),
    "cohere2_vision": Case(
        vision("cohere2_vision", image_size=512, patch_size=16, top={"downsample_factor": 2}),
        "cohere2_vision.image_processing_cohere2_vision.Cohere2VisionImageProcessor",
        "cohere2_vision.processing_cohere2_vision.Cohere2VisionProcessor",
        attributes={"boi_token": "<b>", "eoi_token": "<e>", "img_line_break_token": "<n>", "patch_size": 16},
    ),
    "deepseek_ocr2": Case(
        vision("deepseek_ocr2"), "deepseek_ocr2.image_processing_deepseek_ocr2.DeepseekOcr2ImageProcessor",
        "deepseek_ocr2.processing_deepseek_ocr2.DeepseekOcr2Processor",
        attributes={"patch_size": 16, "downsample_ratio": 4},
    ),
    "paligemma 448": Case(
        vision("paligemma", image_size=448, patch_size=14), _SIGLIP,
        "paligemma.processing_paligemma.PaliGemmaProcessor",
        _square(448), {"image_seq_length": 1024},
    ),
    "lfm2_vl": Case(
        vision("lfm2_vl", patch_size=16, top={"downsample_factor": 2}),
        "lfm2_vl.image_processing_lfm2_vl.Lfm2VlImageProcessor", "lfm2_vl.processing_lfm2_vl.Lfm2VlProcessor",
        {"return_row_col_info": True},
        {"image_start_token": "<b>", "image_end_token": "<e>", "image_thumbnail_token": "<g>"},
    ),
    "idefics3": _idefics3("idefics3", 364, 14, 2),
    "idefics3, SmolVLM 2.2B": _idefics3("idefics3", 384, 14, 3),
    "smolvlm, 500M": _idefics3("smolvlm", 512, 16, 4),
}  # fmt: skip
