"""A recipe as plain JSON values and back, so that a file can hold every field of a spec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, TypeVar, get_type_hints

from peftbench.base.errors import SpecError, did_you_mean
from peftbench.inputs.recipe.adapter import AdapterSpec
from peftbench.inputs.recipe.dtype import DType
from peftbench.inputs.recipe.inference import InferenceSpec
from peftbench.inputs.recipe.parallelism import ParallelismSpec
from peftbench.inputs.recipe.quantization import QuantizationSpec
from peftbench.inputs.recipe.training import TrainingSpec

Spec = TypeVar("Spec", TrainingSpec, InferenceSpec, AdapterSpec, QuantizationSpec, ParallelismSpec)


def training_to_json(training: TrainingSpec) -> dict[str, object]:
    """Every field, nested as the specs are; json.dumps writes dtypes as their names and tuples as lists."""
    return asdict(training)


def training_from_json(value: object) -> TrainingSpec:
    """The inverse of training_to_json; a field that is left out has its default.

    Raises SpecError for anything but an object, for unknown fields, wrong types and recipes that cannot be.
    """
    return _build(TrainingSpec, _with_parts(value, "training"), "training")


def inference_from_json(value: object) -> InferenceSpec:
    """The inverse of dataclasses.asdict for a generation request; raises as training_from_json."""
    return _build(InferenceSpec, _with_parts(value, "inference"), "inference")


def adapter_from_json(value: object) -> AdapterSpec | None:
    """The inverse of dataclasses.asdict for an adapter; None is none. Raises as training_from_json."""
    return _nested(AdapterSpec, value, "adapter")


def quantization_from_json(value: object) -> QuantizationSpec | None:
    """The inverse of dataclasses.asdict for a quantization; None is none. Raises as training_from_json."""
    return _nested(QuantizationSpec, value, "quantization")


def _with_parts(value: object, where: str) -> dict[str, object]:
    given = dict(_object(value, where))
    given["adapter"] = _nested(AdapterSpec, given.get("adapter"), f"{where}.adapter")
    given["quantization"] = _nested(QuantizationSpec, given.get("quantization"), f"{where}.quantization")
    if "parallelism" in given:
        given["parallelism"] = _build(
            ParallelismSpec, _object(given["parallelism"], f"{where}.parallelism"), f"{where}.parallelism"
        )
    return given


def _nested(spec: type[Spec], value: object, where: str) -> Spec | None:
    return None if value is None else _build(spec, _object(value, where), where)


def _object(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise SpecError(f"{where} must be an object, not {value!r}.")
    return value


def _build(spec: type[Spec], given: Mapping[str, object], where: str) -> Spec:
    """Make the spec from values of the types that its annotations name."""
    hints = get_type_hints(spec)
    known = {field.name for field in fields(spec)}
    for name in given:
        if name not in known:
            raise SpecError(f"{where} has no field {name!r}.", did_you_mean(name, known))
    return spec(**{name: _typed(value, hints[name], f"{where}.{name}") for name, value in given.items()})


def _typed(value: object, hint: Any, where: str) -> Any:
    """The value, as the annotation wants it: a DType from its name, tuples from lists."""
    if isinstance(value, str) and hint is DType:
        if value not in set(DType):
            raise SpecError(f"{where} must be one of {', '.join(DType)}, not {value!r}.")
        return DType(value)
    if isinstance(value, (list, tuple)):
        value = tuple(tuple(item) if isinstance(item, list) else item for item in value)
    if not _fits(value, hint):
        raise SpecError(f"{where} cannot be {value!r}.")
    return value


def _fits(value: object, hint: Any) -> bool:
    """Whether the value's type is one that the annotation allows; True is no int, though Python says so."""
    if hint in (int, str, bool):
        return type(value) is hint
    if hint is float:
        return type(value) in (int, float)
    if hint == tuple[str, ...] | None:
        return value is None or (isinstance(value, tuple) and all(type(item) is str for item in value))
    if hint == int | None:
        return value is None or type(value) is int
    if hint == str | None:
        return value is None or type(value) is str
    if isinstance(value, tuple):
        return all(_is_option(item) for item in value)
    return isinstance(value, (AdapterSpec, QuantizationSpec, ParallelismSpec, type(None)))


def _is_option(item: object) -> bool:
    """A pair of PEFT's name and a plain value."""
    if not isinstance(item, tuple) or len(item) != 2:
        return False
    return type(item[0]) is str and type(item[1]) in (int, float, str, bool)
