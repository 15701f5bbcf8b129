"""Calls from Python with wrong arguments: whatever is given, PeftbenchError is all that may come, or an answer."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from fuzz.atoms import text, thing
from fuzz.case import Case
from fuzz.options import SMALL, names
from fuzz.oracles import plan_faults, value_faults

import peftbench
from peftbench.base.errors import PeftbenchError
from peftbench.decide.from_options import OPTIONS
from peftbench.decide.plan.plan import Plan
from peftbench.inputs.recipe import AdapterSpec, InferenceSpec, ParallelismSpec, QuantizationSpec, TrainingSpec
from peftbench.memory import MemoryProfile
from peftbench.report.plan.document import plan_document

LLAMA, T4 = peftbench.find_model("135m"), peftbench.find_gpu("t4")
LORA = TrainingSpec(adapter=AdapterSpec(r=8, target_modules=("all-linear",)), dtype=peftbench.DType.FLOAT16)
SPECS: dict[str, Any] = {
    "TrainingSpec": TrainingSpec, "AdapterSpec": AdapterSpec, "QuantizationSpec": QuantizationSpec,
    "ParallelismSpec": ParallelismSpec, "InferenceSpec": InferenceSpec, "GpuSpec": type(T4), "ModelSpec": type(LLAMA),
}  # fmt: skip
FILLED: dict[str, dict[str, Any]] = {
    "GpuSpec": {field.name: getattr(T4, field.name) for field in fields(T4)},
    "ModelSpec": {field.name: getattr(LLAMA, field.name) for field in fields(LLAMA)},
}
"""What those that have no defaults are given."""
FUNCTIONS: dict[str, tuple[Callable[..., Any], dict[str, Any], tuple[str, ...]]] = {
    "plan": (peftbench.plan, {"model": "135m", "gpu": "t4", "method": "lora"}, ("framework", *OPTIONS)),
    "dry_run": (peftbench.dry_run, {"model": "135m", "gpu": "t4", "method": "lora"},
                ("batch_lengths", "empty_cache_steps", *OPTIONS)),
    "measure_training": (peftbench.measure_training, {"model": "135m", "method": "lora", "device": "cpu", "steps": 2},
                         ("timeout_s", *OPTIONS)),
    "find_model": (peftbench.find_model, {"text": "8b"}, ()),
    "find_gpu": (peftbench.find_gpu, {"text": "t4"}, ()),
    "make_plan": (peftbench.make_plan, {"model": LLAMA, "training": LORA, "gpu": T4}, ("with_changes", "framework")),
    "estimate_training": (peftbench.estimate_training, {"model": LLAMA, "training": LORA, "gpu": T4}, ()),
    "estimate_inference": (peftbench.estimate_inference,
                           {"model": LLAMA, "inference": InferenceSpec(dtype=peftbench.DType.FLOAT16), "gpu": T4}, ()),
}  # fmt: skip
"""The function, good arguments, and what else it takes."""
WEIGHTS = {"plan": 40, "dry_run": 6, "measure_training": 2, "find_model": 2, "find_gpu": 2, "make_plan": 4,
           "estimate_training": 3, "estimate_inference": 3, **dict.fromkeys(SPECS, 5)}  # fmt: skip


def calls(chance: random.Random, kind: str, number: int) -> Case:
    """One call: good arguments, of which one or a few are something else."""
    name = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    given, more = _usual(name)
    if name in FUNCTIONS and "model" in given and isinstance(given["model"], str) and name != "measure_training":
        given |= {"model": chance.choice(SMALL[:8]), "method": chance.choice(("full", "lora", "qlora", *names()[2]))}
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        argument = (
            chance.choice((*given, *more)) if chance.random() < 0.97 else chance.choice(("sequence_lenght", "", "x"))
        )
        given[argument] = thing(chance) if chance.random() < 0.85 else text(chance)
    return Case(kind, number, call=(name, given))


def _usual(name: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    if name in FUNCTIONS:
        _, given, more = FUNCTIONS[name]
        return dict(given), more
    return dict(FILLED.get(name, {})), tuple(field.name for field in fields(SPECS[name]))


def call_faults(call: tuple[str, dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """What was wrong, and more about it. Raises what it should not have raised."""
    name, given = call
    try:
        found = (SPECS.get(name) or FUNCTIONS[name][0])(**given)
        if name in SPECS:
            yield from _type_faults(found)
            found = _used(found)
    except PeftbenchError as error:
        if not error.what:
            yield "an error without words", ""
        return
    except TypeError as error:
        if not re.search("unexpected keyword argument|missing . required", str(error)) or error.__traceback__.tb_next:
            raise
        return
    yield from ((what, "") for what in _answer_faults(found))


def _used(spec: Any) -> Any:
    """What a spec is for."""
    if isinstance(spec, TrainingSpec):
        return peftbench.make_plan(LLAMA, spec, T4)
    if isinstance(spec, InferenceSpec):
        return peftbench.estimate_inference(LLAMA, spec, T4)
    if isinstance(spec, AdapterSpec):
        return peftbench.make_plan(LLAMA, TrainingSpec(adapter=spec), T4)
    if isinstance(spec, QuantizationSpec):
        return peftbench.make_plan(LLAMA, TrainingSpec(adapter=LORA.adapter, quantization=spec), T4)
    if isinstance(spec, ParallelismSpec):
        return peftbench.make_plan(LLAMA, TrainingSpec(parallelism=spec), T4)
    return peftbench.make_plan(*((LLAMA, LORA, spec) if isinstance(spec, type(T4)) else (spec, LORA, T4)))


def _answer_faults(found: Any) -> Iterator[str]:
    if isinstance(found, Plan):
        document = plan_document(found.model, [found])
        yield from value_faults(document)
        for plan in document["plans"]:
            yield from plan_faults(plan)
    elif isinstance(found, MemoryProfile):
        for part in found.components:
            if not 0 <= part.low_bytes <= part.bytes <= part.high_bytes or type(part.bytes) is not int:
                yield f"{part.part} is no size within its band"


def _type_faults(spec: Any) -> Iterator[tuple[str, str]]:
    """Fields that took a value of another type."""
    hints = get_type_hints(type(spec), None, {"CardConstants": object, **SPECS, "DType": peftbench.DType})
    for field in fields(spec):
        if not _is_a(hints[field.name], getattr(spec, field.name)):
            yield f"{field.name} takes another type", type(getattr(spec, field.name)).__name__


def _is_a(hint: Any, value: Any) -> bool:
    """Whether the value is of exactly this type; a whole number is a float, NaN is not."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_is_a(each, value) for each in inner)
    if origin is tuple:
        kinds = inner[:1] * len(value) if isinstance(value, tuple) and inner[-1] is ... else inner
        return isinstance(value, tuple) and len(kinds) == len(value) and all(map(_is_a, kinds, value))
    if hint is float:
        return type(value) is int or (type(value) is float and math.isfinite(value))
    if hint in (Any, object) or hint is NoneType:
        return hint is not NoneType or value is None
    if is_dataclass(hint) or (isinstance(hint, type) and issubclass(hint, (Enum, Mapping))):
        return isinstance(value, hint)
    return type(value) is hint if isinstance(hint, type) else True
