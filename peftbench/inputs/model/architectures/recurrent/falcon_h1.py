"""Falcon-H1: attention and Mamba 2 side by side in every layer, and numbers that multiply what passes between parts."""

from __future__ import annotations

from typing import Literal

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import Family, Layout
from peftbench.inputs.model.field_groups import Fields, attention_of, bias_fields, core_fields, mamba2_of, rotary_fields
from peftbench.inputs.model.parts import Hybrid, Layer, Mlp


def _falcon_h1(keys: ConfigKeys) -> Fields:
    core = rotary_fields(core_fields(keys, positions=8192, key_value_heads=8, inner=14336))
    scanned = keys.whole("mamba_expand", 2) * core["hidden_size"] if _null(keys) else keys.whole("mamba_d_ssm", 1024)
    mamba = mamba2_of(keys, scanned)._replace(norm=_norm(keys), output_bias=keys.flag("projectors_bias", False))
    layer = Layer(Hybrid(attention_of(core), mamba), Mlp(core["intermediate_size"]))
    biases = {**bias_fields(keys), "mlp_bias": keys.flag("mlp_bias", False)}
    return {**core, **biases, "own_layers": (layer,) * core["num_hidden_layers"]}


def _norm(keys: ConfigKeys) -> Literal["gate first", "gate last", "none"]:
    if not keys.flag("mamba_rms_norm", False):
        return "none"
    return "gate last" if keys.flag("mamba_norm_before_gate", True) else "gate first"


def _null(keys: ConfigKeys) -> bool:
    """Whether the width of the scan is left to mamba_expand."""
    return keys.has("mamba_d_ssm") and keys.value("mamba_d_ssm") is None


FAMILIES = {
    "falcon_h1": Family(
        read=_falcon_h1,
        layout=Layout(
            recurrent="mamba.", mlp="feed_forward.", norms=("input_layernorm", "pre_ff_layernorm"),
            final_norm="final_layernorm", network_first=True,
        ),
        scales=frozenset(("embedding", "logits", "key", "mlp", "state_space")),
        refused=("out_proj",),
    )
}  # fmt: skip
