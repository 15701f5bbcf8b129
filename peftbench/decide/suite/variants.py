"""From a suite of kind quality or latency to the one comparison that it asks for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

from peftbench.base.codec import from_json
from peftbench.base.errors import SpecError, did_you_mean, located
from peftbench.base.visible import written
from peftbench.decide.recipe import LORA, parsed
from peftbench.decide.suite.cases import combinations, config_of
from peftbench.inputs.comparison import ComparisonCase, LatencyCase, QualityCase, Variant
from peftbench.inputs.recipe import AdapterSpec, DType, QuantizationSpec
from peftbench.inputs.schemes.scheme import scheme_of
from peftbench.inputs.suite import Suite

WEIGHTS = (*(dtype.value for dtype in DType), "int8", "nf4", "fp4")
_OPTIONS = (
    "weights", "dtype", "compute_dtype", "blocksize", "double_quant", "adapter", "method", "r", "target_modules",
    "adapters", "round_trips", "against",
)  # fmt: skip
_OF_CASE = ("id", "model", "config", "variants", "seed", "device")
"""Fields of a comparison that the suite has keys of its own for."""


def comparison_of(suite: Suite, device: str | None = None) -> ComparisonCase:
    """The comparison with all variants. Raises SpecError or CatalogError, naming the case, for what cannot be."""
    kind = QualityCase if suite.kind == "quality" else LatencyCase
    known = sorted({field.name for field in fields(kind)} - {*_OF_CASE})
    for name in suite.compare:
        if name not in known:
            raise SpecError(f"compare has no key {name!r}.", did_you_mean(name, known) or f"Keys: {', '.join(known)}.")
    place = device or suite.device
    shared: dict[str, Any] = {
        **suite.compare, "id": suite.name, "seed": suite.seed, "device": place,
        "variants": tuple(_variants(suite, place)),
    }  # fmt: skip
    with located(f"suite {suite.name}"):
        if kind is QualityCase:
            return QualityCase(model=_quality_model(suite), **shared)
        model = config_of(suite)
        return LatencyCase(model=model.name, config=json.dumps(model.config, sort_keys=True), **shared)


def _quality_model(suite: Suite) -> str:
    if not isinstance(suite.model, str):
        raise SpecError("the quality of a model that has only a config cannot be measured: it has no weights.",
                        "Name one: small-llama, smollm2-135m-instruct, a folder, or a model of the Hub.")  # fmt: skip
    return suite.model


def _variants(suite: Suite, device: str) -> Iterator[Variant]:
    for name, options in combinations(suite):
        with located(f"suite {suite.name}, case {name!r}"):
            variant = _variant(name, options, device)
        yield variant


def _variant(name: str, given: Mapping[str, Any], device: str) -> Variant:
    for option in given:
        if option not in _OPTIONS:
            hint = did_you_mean(option, _OPTIONS) or f"Options: {', '.join(_OPTIONS)}."
            raise SpecError(f"unknown option {option!r}.", hint)
    weights = _one_of("weights", given.get("weights"), WEIGHTS)
    quantized = weights not in {dtype.value for dtype in DType}
    default = DType.FLOAT32.value if device == "cpu" else DType.BFLOAT16.value
    dtype = DType(_one_of("dtype", given.get("dtype", default if quantized else weights), tuple(DType)))
    if not quantized and (dtype.value != weights or {"blocksize", "double_quant", "compute_dtype"} & {*given}):
        raise SpecError(f"weights in {weights} have no other dtype and no blocks.", "Leave those options out.")
    route = from_json(str, given.get("adapter", "base"), "adapter")
    more = {option: given[option] for option in ("adapters", "round_trips", "against") if option in given}
    return Variant(
        name=name, dtype=dtype, quantization=_quantization(weights, dtype, given) if quantized else None,
        route=route, adapter=None if route == "base" else _adapter(given), **more,
    )  # fmt: skip


def _quantization(weights: str, dtype: DType, given: Mapping[str, Any]) -> QuantizationSpec:
    if {"blocksize", "double_quant"} & {*given} - {*scheme_of(weights).options}:
        raise SpecError(f"blocksize and double_quant have no effect with {weights}.", "Leave them out.")
    return QuantizationSpec(**{"compute_dtype": dtype, **parsed(QuantizationSpec, given), "quant_type": weights})


def _adapter(given: Mapping[str, Any]) -> AdapterSpec:
    """`plan`'s LoRA, or another type with PEFT's defaults."""
    method = from_json(str, given.get("method", "lora"), "method")
    adapter = LORA if method == "lora" else AdapterSpec(peft_type=method.replace("-", "_"))
    return replace(adapter, **parsed(AdapterSpec, given))


def _one_of(name: str, value: object, known: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in known:
        raise SpecError(f"{name} cannot be {written(value)}.", f"Choose one of {', '.join(map(str, known))}.")
    return str(value)
