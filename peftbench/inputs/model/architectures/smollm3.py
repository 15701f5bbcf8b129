"""SmolLM3: Llama with layers that skip the rotation."""

from __future__ import annotations

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import Family
from peftbench.inputs.model.field_groups import (
    Fields,
    bias_fields,
    core_fields,
    rotary_fields,
    sliding_layers,
    window_fields,
)


def _smollm3(keys: ConfigKeys) -> Fields:
    core = rotary_fields(core_fields(keys, positions=32768, tied=True, key_value_heads=4))
    layers, interval = core["num_hidden_layers"], keys.whole("no_rope_layer_interval", 4)
    rotated = keys.whole_list("no_rope_layers") or tuple((i + 1) % interval for i in range(layers))
    if len(rotated) < layers:
        raise keys.refuse("no_rope_layers", list(rotated), f"a list of {layers} numbers, one a layer")
    without = tuple(i for i in range(layers) if not rotated[i])
    biases = {**bias_fields(keys), "mlp_bias": keys.flag("mlp_bias", False)}
    fields = {**core, **biases, "layers_without_rope": without}
    if keys.flag("use_sliding_window", False):
        fields |= window_fields(keys, sliding_layers(keys, layers, lambda i: i in without), None)
    return fields


FAMILIES = {"smollm3": Family(read=_smollm3, liger=True)}
