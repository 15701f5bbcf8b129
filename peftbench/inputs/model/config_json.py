"""Turn a parsed config.json into a ModelSpec, or into one message that says what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping

from peftbench.base.errors import NoFormula, SpecError, did_you_mean
from peftbench.inputs.model.config_keys import ConfigKeys
from peftbench.inputs.model.family import Family, find_family, known_families
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.model.weights import num_parameters

MOST_PARAMETERS = 10**14
"""Fifty times the largest model published; anything beyond is a typing error."""


def read_config(config: Mapping[str, object], name: str, source: str) -> ModelSpec:
    """Build the ModelSpec of a parsed config.json; keys it omits have the defaults of transformers' class.

    The dtype is ignored and a quantization_config only named: both are part of the recipe, not of the model.
    Raises SpecError for an unsupported architecture and for missing, mistyped or impossible values.
    """
    config = _text_part(config, name)
    family = _family(config)
    if family is None or family.text_type:
        raise _no_formula(config, name)
    model = ModelSpec(
        name=name, source=source, model_type=str(config["model_type"]),
        stored_quantization=_stored_quantization(config), **family.read(ConfigKeys(config, name, family.spelled)),
    )  # fmt: skip
    if num_parameters(model) > MOST_PARAMETERS:
        raise SpecError(
            f"{name}: these sizes make {num_parameters(model):,} parameters, more than any model has.",
            "Check hidden_size, intermediate_size, num_hidden_layers and vocab_size in the config.json.",
        )
    return model


def _text_part(config: Mapping[str, object], name: str) -> Mapping[str, object]:
    """The language model inside a multimodal config; other configs as they are."""
    family = _family(config)
    if family is None or not family.text_type:
        return config
    text = config.get("text_config")
    if not isinstance(text, Mapping):
        raise SpecError(
            f"{name}: a {config['model_type']} config.json needs a text_config object, not {type(text).__name__}.",
            "Download the complete config.json of the model.",
        )
    return {"model_type": family.text_type, **family.text_defaults, **text}


def _family(config: Mapping[str, object]) -> Family | None:
    model_type = config.get("model_type")
    return find_family(model_type) if isinstance(model_type, str) else None


def _stored_quantization(config: Mapping[str, object]) -> str:
    stored = config.get("quantization_config")
    method = stored.get("quant_method", "unknown") if isinstance(stored, Mapping) else ""
    return str(method)[:40]


def _no_formula(config: Mapping[str, object], name: str) -> NoFormula:
    model_type = config.get("model_type")
    near = did_you_mean(model_type[:60], known_families()) if isinstance(model_type, str) else ""
    return NoFormula(
        f"{name}: {_architecture(config)} is not an architecture that peftbench knows by formula.",
        f"{near} Known: {', '.join(known_families())}. ".lstrip()
        + "For anything else that transformers can build, use --dry-run.",
    )


def _architecture(config: Mapping[str, object]) -> str:
    """What the file calls itself: its model_type, and its first architectures entry when there is one."""
    model_type, architectures = config.get("model_type"), config.get("architectures")
    first = architectures[0] if isinstance(architectures, (list, tuple)) and architectures else None
    if model_type is None:
        return f"{str(first)[:60]} (model_type missing)" if first else "a config.json without model_type"
    return f"{str(model_type)[:60]!r}" + (f" ({str(first)[:60]})" if first else "")
