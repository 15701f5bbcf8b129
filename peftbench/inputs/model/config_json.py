"""Turn a parsed config.json into a ModelSpec, or into one message that says what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping

from peftbench.base.errors import NoFormula, SpecError, did_you_mean
from peftbench.inputs.model.architectures.families import FAMILIES, SPELLINGS
from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.model.weights import num_parameters

MOST_PARAMETERS = 10**14
"""Fifty times the largest model published; anything beyond is a typing error."""

_GEMMA3_DEFAULTS = {"num_attention_heads": 8, "vocab_size": 262_208}
"""What multimodal Gemma 3 files leave out of text_config: the defaults of Gemma3TextConfig."""


def read_config(config: Mapping[str, object], name: str, source: str) -> ModelSpec:
    """Build the ModelSpec of a parsed config.json; keys it omits have the defaults of transformers' class.

    The dtype is ignored and a quantization_config only named: both are part of the recipe, not of the model.
    Raises SpecError for an unsupported architecture and for missing, mistyped or impossible values.
    """
    config = _text_part(config, name)
    model_type = _model_type(config, name)
    keys = ConfigKeys(config, name, SPELLINGS.get(model_type))
    model = ModelSpec(
        name=name, source=source, model_type=model_type, stored_quantization=_stored_quantization(config),
        **FAMILIES[model_type](keys),
    )  # fmt: skip
    if num_parameters(model) > MOST_PARAMETERS:
        raise SpecError(
            f"{name}: these sizes make {num_parameters(model):,} parameters, more than any model has.",
            "Check hidden_size, intermediate_size, num_hidden_layers and vocab_size in the config.json.",
        )
    return model


def _text_part(config: Mapping[str, object], name: str) -> Mapping[str, object]:
    """The language model inside a multimodal Gemma 3; other configs as they are."""
    if config.get("model_type") != "gemma3":
        return config
    text = config.get("text_config")
    if not isinstance(text, Mapping):
        raise SpecError(
            f"{name}: a gemma3 config.json needs a text_config object, not {type(text).__name__}.",
            "Download the complete config.json of the model.",
        )
    return {"model_type": "gemma3_text", **_GEMMA3_DEFAULTS, **text}


def _stored_quantization(config: Mapping[str, object]) -> str:
    stored = config.get("quantization_config")
    method = stored.get("quant_method", "unknown") if isinstance(stored, Mapping) else ""
    return str(method)[:40]


def _model_type(config: Mapping[str, object], name: str) -> str:
    model_type = config.get("model_type")
    if isinstance(model_type, str) and model_type in FAMILIES:
        return model_type
    raise NoFormula(
        f"{name}: {_architecture(config)} is not an architecture that peftbench knows by formula.",
        f"{_near(model_type)}Known: {', '.join(FAMILIES)}. "
        "For anything else that transformers can build, use --dry-run.",
    )


def _architecture(config: Mapping[str, object]) -> str:
    """What the file calls itself: its model_type, and its first architectures entry when there is one."""
    model_type, architectures = config.get("model_type"), config.get("architectures")
    first = architectures[0] if isinstance(architectures, (list, tuple)) and architectures else None
    if model_type is None:
        return f"{str(first)[:60]} (model_type missing)" if first else "a config.json without model_type"
    return f"{str(model_type)[:60]!r}" + (f" ({str(first)[:60]})" if first else "")


def _near(model_type: object) -> str:
    hint = did_you_mean(model_type[:60], FAMILIES) if isinstance(model_type, str) else ""
    return f"{hint} " if hint else ""
