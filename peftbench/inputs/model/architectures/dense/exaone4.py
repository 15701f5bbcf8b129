"""EXAONE 4: norms after attention and MLP and over each head; layers without a window skip the rotation."""

from __future__ import annotations

from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import GEMMA2_NORMS, Family, Layout
from peftbench.inputs.model.field_groups import (
    Fields,
    core_fields,
    every_layer,
    rotary_fields,
    sliding_layers,
    window_fields,
)


def _exaone4(keys: ConfigKeys) -> Fields:
    """sliding_window_pattern, which may be a word, is read where layer_types is omitted only."""
    core = rotary_fields(core_fields(keys, positions=2048, key_value_heads=32))
    norms = {"qk_norm": "head", "norm_before": False}
    if keys.has("sliding_window") and keys.value("sliding_window") is None:
        return {**core, **norms}
    slides = sliding_layers(keys, core["num_hidden_layers"], lambda i: (i + 1) % _pattern(keys) != 0)
    without = tuple(i for i in every_layer(core) if i not in slides)
    return {**core, **norms, **window_fields(keys, slides, 4096), "layers_without_rope": without}


def _pattern(keys: ConfigKeys) -> int:
    return keys.whole("sliding_window_pattern", 4)


FAMILIES = {"exaone4": Family(read=_exaone4, layout=Layout(norms=GEMMA2_NORMS[1::2]), liger=True)}
