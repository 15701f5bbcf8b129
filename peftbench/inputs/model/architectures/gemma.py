"""Gemma, Gemma 2 and the language model of Gemma 3: wide heads, a tied head, from Gemma 2 on four norms a layer."""

from __future__ import annotations

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import GEMMA2_NORMS, LLAMA_TARGETS, Family, Layout, Targets
from peftbench.inputs.model.field_groups import (
    Fields,
    bias_fields,
    core_fields,
    rotary_fields,
    sliding_layers,
    softcap_fields,
    window_fields,
)


def _core(keys: ConfigKeys, positions: int, key_value_heads: int) -> Fields:
    act = "gelu_pytorch_tanh"
    core = core_fields(keys, positions, key_value_heads, tied=True, act=act, head_dim=256)
    return {**rotary_fields(core), **bias_fields(keys)}


def _gemma(keys: ConfigKeys) -> Fields:
    core = _core(keys, positions=8192, key_value_heads=16)
    if core["hidden_act"] == "gelu":  # a legacy value that GemmaConfig replaces
        core["hidden_act"] = "gelu_pytorch_tanh"
    return core


def _gemma2(keys: ConfigKeys) -> Fields:
    core = _core(keys, positions=8192, key_value_heads=4)
    sliding = sliding_layers(keys, core["num_hidden_layers"], lambda i: i % 2 == 0)
    softcaps = softcap_fields(keys, attention=50.0, final=30.0)
    return {**core, "norms_per_layer": 4, **softcaps, **window_fields(keys, sliding, 4096)}


def _gemma3_text(keys: ConfigKeys) -> Fields:
    core = _core(keys, positions=131072, key_value_heads=4)
    pattern = keys.whole("sliding_window_pattern", 6)
    sliding = sliding_layers(keys, core["num_hidden_layers"], lambda i: (i + 1) % pattern != 0)
    norms = {"norms_per_layer": 4, "qk_norm": "head"}
    return {**core, **norms, **softcap_fields(keys), **window_fields(keys, sliding, 4096)}


def _vaultgemma(keys: ConfigKeys) -> Fields:
    return {**_gemma2(keys), "norms_per_layer": 2}


_TARGETS = LLAMA_TARGETS._replace(ia3=("q_proj", "v_proj", "down_proj"))
_GEMMA = Family(read=_gemma, norm="gemma", liger=True, targets=_TARGETS)
_GEMMA2 = _GEMMA._replace(
    read=_gemma2, spelled={"hidden_act": ("hidden_activation",)}, layout=Layout(norms=GEMMA2_NORMS), sdpa=False,
    targets=_TARGETS._replace(ln_tuning=(*GEMMA2_NORMS, "norm")),
)  # fmt: skip
_GEMMA3 = _GEMMA2._replace(read=_gemma3_text, sdpa=True)
FAMILIES = {
    "vaultgemma": _GEMMA2._replace(
        read=_vaultgemma, layout=Layout(norms=GEMMA2_NORMS[::2]), liger=False, targets=Targets()
    ),
    "gemma": _GEMMA,
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA3,
    "gemma3": _GEMMA3._replace(
        text_type="gemma3_text", text_defaults={"num_attention_heads": 8, "vocab_size": 262_208}
    ),
}
