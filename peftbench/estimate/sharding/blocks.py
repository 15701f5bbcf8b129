"""The blocks of FSDP2's units, for a replay: what each is loaded, cut, gathered and reduced in."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import prod
from typing import NamedTuple

from peftbench.estimate.parts.base_weights import quantized_weights
from peftbench.estimate.parts.tensors import TensorGroup
from peftbench.estimate.replay.shards import ShardedUnit, Sharding
from peftbench.estimate.sharding.loading import loads_whole
from peftbench.estimate.sharding.split import code_part_bytes, computing, part_of, rest_itemsize, stored_dtype
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.model.weight import Role, Weight
from peftbench.inputs.model.weights import weights_of
from peftbench.inputs.recipe import TrainingSpec


class _Parameter(NamedTuple):
    """One parameter: bytes."""

    loaded: int
    """0 where it is on the card before."""
    part: int
    gathered: int
    """The part in the dtype that it is gathered in."""
    trained: bool
    constants: int = 0
    """Bytes of a quantized weight, unless they are on the card before, too."""


@lru_cache(maxsize=1024)
def sharding_of(model: ModelSpec, training: TrainingSpec, tensors: tuple[TensorGroup, ...]) -> Sharding:
    """The units of a model that trains these tensors, whole ones."""
    layers = [
        _unit(_of_layer(model, training, tensors, layer), training) for layer in range(model.num_hidden_layers)
    ]
    outside = [weight for weight in weights_of(model) if weight.layers is None]
    tables = [weight for weight in outside if weight.role is Role.EMBEDDING]
    head = [weight for weight in outside if weight.role is not Role.EMBEDDING]
    tied = model.tie_word_embeddings
    first, last = (
        _unit([parameter for weight in each for parameter in _base(weight, model, training)], training)
        for each in (tables, [*head, *tables] if tied else head)
    )
    parallelism = training.parallelism
    return Sharding(
        (None if tied else first, *layers, last),
        parallelism.strategy == "fsdp-grad-op", training.defers_reduction, parallelism.offloads_weights,
        loads_whole(training), computing(training),
    )  # fmt: skip


def _unit(parameters: list[_Parameter], training: TrainingSpec) -> ShardedUnit:
    gpus = training.parallelism.gpus
    trained = [parameter for parameter in parameters if parameter.trained]
    return ShardedUnit(
        tuple(parameter.loaded for parameter in parameters if parameter.loaded),
        tuple(parameter.part for parameter in parameters),
        tuple(parameter.constants for parameter in parameters if parameter.constants),
        tuple(parameter.gathered * gpus for parameter in parameters),
        _casts(parameters, training),
        sum(parameter.gathered for parameter in trained) * gpus,
        sum(parameter.gathered for parameter in trained),
        sum(parameter.part for parameter in trained),
    )


def _casts(parameters: list[_Parameter], training: TrainingSpec) -> tuple[tuple[int, int], ...]:
    """Parts whose dtype changes are cast into one buffer. Those of the host come one by one, and are cast then.

    Source: _get_param_all_gather_inputs in torch/distributed/fsdp/_fully_shard/_fsdp_collectives.py.
    """
    if training.parallelism.offloads_weights:
        return tuple((p.part, p.gathered) if p.part != p.gathered else (0, p.part) for p in parameters)
    cast = sum(parameter.gathered for parameter in parameters if parameter.gathered != parameter.part)
    return ((0, cast),) if cast else ()


def _of_layer(
    model: ModelSpec, training: TrainingSpec, tensors: tuple[TensorGroup, ...], layer: int
) -> list[_Parameter]:  # fmt: skip
    """Weights in the order of the model; each is followed by what the adapter adds to it."""
    adapters = list(_adapters(training, tensors, layer, model.num_hidden_layers)) if training.adapter else []
    found: list[_Parameter] = []
    for weight in weights_of(model):
        if weight.layers is not None and layer in weight.layers:
            found += _base(weight, model, training)
            name = weight.path.rpartition(".")[2]
            found += [parameter for module, parameter in adapters if module == name]
            adapters = [(module, parameter) for module, parameter in adapters if module != name]
    return [*found, *(parameter for _, parameter in adapters)]


def _base(weight: Weight, model: ModelSpec, training: TrainingSpec) -> Iterator[_Parameter]:
    """What is quantized on the card is there before, and all else of its model: see replay/load.py."""
    quantization, there = training.quantization, training.quantization is not None and loads_whole(training)
    if quantization is not None and weight in set(quantized_weights(model, quantization)):
        part, whole = code_part_bytes(weight, training), quantization.code_bytes(weight.numel)
        constants = quantization.scheme.constants_bytes(weight.out_features, weight.in_features, quantization)
        one = _Parameter(0 if there else whole, part, part, False, 0 if there else constants)
    else:
        numel = prod(part_of(weight.shape, training.parallelism.gpus, False))
        stored = rest_itemsize(weight, training)
        gathered = numel * _gathered_itemsize(stored, training)
        one = _Parameter(0 if there else weight.numel * stored, numel * stored, gathered, training.adapter is None)
    for _ in range(weight.copies):
        yield one


def _gathered_itemsize(stored: int, training: TrainingSpec) -> int:
    """Mixed precision casts all parts to one dtype."""
    computed = computing(training)
    return stored if computed is training else computed.dtype.bytes


def _adapters(
    training: TrainingSpec, tensors: tuple[TensorGroup, ...], layer: int, layers: int
) -> Iterator[tuple[str, _Parameter]]:
    """The adapter's tensors in one layer, with the names of their modules; spread evenly over the layers."""
    for group in tensors:
        count = group.count * (layer + 1) // layers - group.count * layer // layers
        numel = prod(part_of(group.shape, training.parallelism.gpus, False))
        stored = stored_dtype(training, group.dtype).bytes
        gathered = numel * _gathered_itemsize(stored, training)
        for _ in range(count):
            yield group.module, _Parameter(group.tensor_numel * stored, numel * stored, gathered, True)
