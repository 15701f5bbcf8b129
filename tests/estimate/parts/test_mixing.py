"""What each kind of mixer keeps and multiplies beside its weights."""

from dataclasses import replace
from typing import get_args

import pytest

from peftbench.base.errors import SpecError
from peftbench.estimate.forward import feed_forward, mixer
from peftbench.estimate.forward.kernels import masks_sliding_layers, part_kernel
from peftbench.estimate.inference import estimate_inference
from peftbench.estimate.parts.mixing import MIXINGS, cache_bytes, mixings_of
from peftbench.estimate.peft_types.tensors import adapter_tensors
from peftbench.estimate.sharding.tensor_parallel import split_cache
from peftbench.estimate.time.flops import step_work
from peftbench.inputs.model import weights
from peftbench.inputs.model.config_json import read_config
from peftbench.inputs.model.parts import Attention, FeedForward, LatentAttention, Mixer
from peftbench.inputs.recipe import AdapterSpec, DType, InferenceSpec, TrainingSpec
from peftbench.memory import Part, Phase, exact

LFM2 = {
    "model_type": "lfm2", "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 96, "vocab_size": 80, "layer_types": ["conv", "full_attention", "conv"], "conv_L_cache": 3,
}  # fmt: skip
YOUTU = {
    "model_type": "youtu", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96,
    "vocab_size": 80, "q_lora_rank": 32, "kv_lora_rank": 24, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8,
    "v_head_dim": 12, "num_key_value_heads": 4,
}  # fmt: skip
KEY_VALUE_SIZE = 32
"""Two key heads of 64 / 4 channels."""


def test_every_kind_of_part_is_in_every_table():
    for table in (MIXINGS, mixer.MIXERS, weights.MIXERS):
        assert set(table) == {*(get_args(Mixer) or (Mixer,))}
    for table in (feed_forward.NETWORKS, weights.NETWORKS):
        assert set(table) == {*get_args(FeedForward)}


def test_one_layer_in_three_keeps_keys_and_the_others_a_few_tokens():
    model = read_config(LFM2, "test", "test")
    assert cache_bytes(model, DType.BFLOAT16, 100, slides=True) == 100 * 2 * KEY_VALUE_SIZE * 2 + 2 * 64 * 3 * 2
    profile = estimate_inference(model, InferenceSpec(prompt_tokens=64, new_tokens=37, batch_size=5))
    kept = [c.bytes for c in profile.components if c.part is Part.KV_CACHE and Phase.DECODE in c.phases]
    assert 5 * cache_bytes(model, DType.BFLOAT16, 100, slides=True) in kept


def test_only_layers_that_attend_count_pairs():
    """Six times the length more work of 2 * 64 channels, half of it hidden, three times and a half (Dao 2023)."""
    model = read_config(LFM2, "test", "test")
    work = step_work(model, TrainingSpec(sequence_length=100, gradient_checkpointing=False))
    assert work.attention_flops == 2 * (2 * 64) * (100 * 100 // 2) * 3.5
    assert {mixing.pair_products for mixing in mixings_of(model)} == {0, 2 * 64}


def test_latents_are_kept_and_every_head_is_expanded_anew():
    """24 + 8 channels a token are kept; 4 heads have 16 + 8 channels of keys and 12 of values."""
    model, two = read_config(YOUTU, "test", "test"), DType.BFLOAT16
    assert cache_bytes(model, two, 100, slides=True) == 2 * 100 * (24 + 8) * two.bytes
    (mixing,) = mixings_of(model)
    assert mixing.pair_products == 4 * (16 + 8 + 12)
    assert mixing.past_products == 24 * 4 * (16 + 12)


def test_every_gpu_has_all_latents():
    model = read_config(YOUTU, "test", "test")
    cache = exact(Part.KV_CACHE, 1000, frozenset({Phase.DECODE}), "latents")
    assert split_cache(cache, model, gpus=4) == cache


def test_prefixes_need_attention_in_every_layer():
    with pytest.raises(SpecError, match="plain attention"):
        adapter_tensors(read_config(LFM2, "test", "test"), AdapterSpec(peft_type="prefix_tuning"), DType.BFLOAT16)


@pytest.mark.parametrize(
    ("part", "kernel", "expected"),
    [
        (Attention(8, 8, 128), "flash", "flash"),
        (Attention(8, 8, 512), "flash", "efficient"),
        (Attention(8, 2, 512), "flash", "efficient"),
        (Attention(8, 2, 128), "math", "math"),
        (Attention(8, 8, 128), "math", "efficient"),
        (LatentAttention(8, 0, 32, 128, 64, 128), "flash", "efficient"),
        (LatentAttention(8, 0, 32, 192, 64, 256), "flash", "flash"),
        (LatentAttention(8, 0, 32, 128, 64, 128), "cpu", "math"),
    ],
)
def test_a_layer_takes_the_kernel_that_its_heads_allow(part, kernel, expected):
    assert part_kernel(part, kernel, "sdpa") == expected
    assert part_kernel(part, kernel, "flash_attention_2") == kernel


def test_windows_are_read_from_the_layers():
    sliding = [Attention(4, 2, 16, window=window) for window in (64, None, 32)]
    model = read_config(LFM2, "test", "test")
    layers = tuple(layer._replace(mixer=part) for layer, part in zip(model.layers, sliding, strict=True))
    slides = replace(model, own_layers=layers)
    assert [masks_sliding_layers(slides, TrainingSpec(sequence_length=n)) for n in (31, 32)] == [False, True]
