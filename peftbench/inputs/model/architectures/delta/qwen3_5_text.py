"""The language model of Qwen3.5: gated delta nets, and at every fourth layer gated attention."""

from __future__ import annotations

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import Family, Layout
from peftbench.inputs.model.field_groups import Fields, bias_fields, core_fields, rotary_factor, rotary_fields
from peftbench.inputs.model.parts import Attention, DeltaNet, Layer, Mixer, Mlp


def mixers(keys: ConfigKeys, core: Fields) -> tuple[Mixer, ...]:
    """The mixer of each layer: attention in every full_attention_interval-th, unless layer_types says otherwise."""
    heads = (core["num_attention_heads"], core["num_key_value_heads"], core["head_dim"], core["rotary_dim"])
    attention = Attention(*heads, output_gate=True)
    delta_net = _delta_net(keys)
    layers, interval = core["num_hidden_layers"], keys.whole("full_attention_interval", 4)
    types = keys.layer_types(layers)
    if types is None:
        return tuple(delta_net if (number + 1) % interval else attention for number in range(layers))
    return tuple(delta_net if kind == "linear_attention" else attention for kind in types)


def _delta_net(keys: ConfigKeys) -> DeltaNet:
    key_heads, value_heads = keys.whole("linear_num_key_heads", 16), keys.whole("linear_num_value_heads", 32)
    if value_heads % key_heads:
        raise keys.refuse("linear_num_value_heads", value_heads, f"a multiple of the {key_heads} key heads")
    dims = keys.whole("linear_key_head_dim", 128), keys.whole("linear_value_head_dim", 128)
    return DeltaNet(key_heads, value_heads, *dims, keys.whole("linear_conv_kernel_dim", 4))


def gated_fields(keys: ConfigKeys, key_value_heads: int, inner: int | None = None) -> Fields:
    """What attention and the rest of the model are."""
    core = core_fields(keys, positions=32768, key_value_heads=key_value_heads, inner=inner, head_dim=256)
    return {**rotary_fields(core, rotary_factor(keys, 0.25)), **bias_fields(keys), "qk_norm": "head"}


def _qwen3_5(keys: ConfigKeys) -> Fields:
    fields = gated_fields(keys, key_value_heads=4)
    network = Mlp(fields["intermediate_size"])
    return {**fields, "own_layers": tuple(Layer(mixer, network) for mixer in mixers(keys, fields))}


LAYOUT = Layout(made=("out_proj", "in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a"))
FAMILIES = {"qwen3_5_text": Family(read=_qwen3_5, layout=LAYOUT, norm="gemma")}
