"""Granite 4 and Bamba: attention in some layers, Mamba 2 in the others, an MLP in each."""

from __future__ import annotations

from peftbench.base.errors import NoFormula
from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import Family, Layout
from peftbench.inputs.model.field_groups import Fields, attention_of, bias_fields, core_fields, mamba2_of, rotary_fields
from peftbench.inputs.model.parts import Layer, Mixer, Mlp


def _granite(keys: ConfigKeys) -> Fields:
    """One gated MLP that all tokens share; experts beside it have no formula yet."""
    if keys.whole("num_local_experts", 8, low=0):
        what = f"{keys.name}: experts beside state-space layers have no formula."
        raise NoFormula(what, "For anything else that transformers can build, use --dry-run.")
    core = core_fields(keys, positions=2048)
    core = rotary_fields(core) if keys.value("position_embedding_type") == "rope" else core
    types = keys.layer_types(core["num_hidden_layers"]) or ("mamba",) * core["num_hidden_layers"]
    attends = [kind in ("attention", "full_attention") for kind in types]
    return _hybrid(keys, {**core, **bias_fields(keys)}, attends, keys.whole("shared_intermediate_size", 1024))


def _bamba(keys: ConfigKeys) -> Fields:
    """Half of each head is rotated, whatever config.json says."""
    core = rotary_fields(core_fields(keys, positions=262144, key_value_heads=8, inner=14336), 0.5)
    indices = keys.whole_list("attn_layer_indices") or ()
    attends = [number in indices for number in range(core["num_hidden_layers"])]
    return _hybrid(
        keys, {**core, **bias_fields(keys), "mlp_bias": keys.flag("mlp_bias", False)}, attends,
        core["intermediate_size"],
    )  # fmt: skip


def _hybrid(keys: ConfigKeys, core: Fields, attends: list[bool], inner: int) -> Fields:
    mamba = None if all(attends) else mamba2_of(keys, keys.whole("mamba_expand", 2) * core["hidden_size"])
    mixers: list[Mixer | None] = [attention_of(core) if each else mamba for each in attends]
    heads = {} if any(attends) else {"num_attention_heads": 0, "num_key_value_heads": 0, "head_dim": 0}
    return {**core, **heads, "own_layers": tuple(Layer(mixer, Mlp(inner)) for mixer in mixers)}


FAMILIES = {
    "granitemoehybrid": Family(
        read=_granite,
        layout=Layout(
            recurrent="mamba.", mlp="shared_mlp.", inner=("input_linear",), fused_gate=True, down="output_linear",
            network_first=True,
        ),
        scales=frozenset(("embedding", "residual", "logits")),
    ),
    "bamba": Family(
        read=_bamba,
        layout=Layout(
            recurrent="mamba.", mlp="feed_forward.", norms=("input_layernorm", "pre_ff_layernorm"),
            final_norm="final_layernorm", network_first=True,
        ),
    ),
}  # fmt: skip
