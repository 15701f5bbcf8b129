"""Nemotron-H: layers of one part each, Mamba 2, attention without positions, or a plain MLP of squared ReLU."""

from __future__ import annotations

from peftbench.base.errors import NoFormula
from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import Family, Layout, Targets
from peftbench.inputs.model.field_groups import Fields, attention_of, core_fields
from peftbench.inputs.model.parts import Layer, Mlp, StateSpace

_HEADS = ("q_proj", "k_proj", "v_proj", "o_proj")
_KINDS = {"M": "linear_attention", "*": "full_attention", "-": "mlp", "E": "moe"}


def _nemotron_h(keys: ConfigKeys) -> Fields:
    """Layers are listed by name or, before transformers 5, by letters; experts have no formula yet."""
    kinds = _kinds(keys)
    if "moe" in kinds:
        what = f"{keys.name}: experts beside state-space layers have no formula."
        raise NoFormula(what, "For anything else that transformers can build, use --dry-run.")
    core = core_fields(keys, positions=4096, key_value_heads=8, head_dim=128, inner=21504)
    layers = {
        "linear_attention": Layer(_mamba2(keys), None),
        "full_attention": Layer(attention_of(core), None),
        "mlp": Layer(None, Mlp(core["intermediate_size"])),
    }
    unknown = next((kind for kind in kinds if kind not in layers), None)
    if unknown is not None:
        raise keys.refuse("layers_block_type", unknown, f"one of {', '.join(layers)}")
    return {
        **core, "hidden_act": keys.activation("mlp_hidden_act", "relu2"), "mlp_bias": keys.flag("mlp_bias", False),
        "num_hidden_layers": len(kinds), "norms_per_layer": 1, "own_layers": tuple(layers[kind] for kind in kinds),
    }  # fmt: skip


def _kinds(keys: ConfigKeys) -> tuple[str, ...]:
    names, letters = keys.value("layers_block_type"), keys.value("hybrid_override_pattern")
    if isinstance(names, (list, tuple)):
        return tuple({"mamba": "linear_attention", "attention": "full_attention"}.get(n, n) for n in map(str, names))
    return tuple(_KINDS.get(letter, letter) for letter in str(letters or "ME*-"))


def _mamba2(keys: ConfigKeys) -> StateSpace:
    bias = keys.flag("use_bias", False)
    return StateSpace(
        keys.whole("mamba_num_heads", 128), keys.whole("mamba_head_dim", 64), keys.whole("ssm_state_size", 128),
        keys.whole("n_groups", 8), keys.whole("conv_kernel", 4), keys.whole("chunk_size", 128),
        bias, keys.flag("use_conv_bias", True), bias,
    )  # fmt: skip


FAMILIES = {
    "nemotron_h": Family(
        read=_nemotron_h,
        layout=Layout(
            embedding="embeddings", attention="mixer.", recurrent="mixer.", mlp="mixer.", inner=("up_proj",),
            norms=("norm",), final_norm="norm_f",
        ),
        form="mamba",
        float32_logits=True,
        refused=("out_proj",),
        targets=Targets(lora=_HEADS, vera=_HEADS, fourierft=_HEADS, adalora=_HEADS),
    )
}  # fmt: skip
