"""The blocks that loading asks for: weights in the order of the model, and what quantization needs on the way."""

from __future__ import annotations

from collections.abc import Iterator

from peftbench.estimate.parts.base_weights import quantized_weights
from peftbench.estimate.parts.tensors import TensorGroup
from peftbench.estimate.replay.pools import Kept, Pools
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.model.weight import Weight
from peftbench.inputs.model.weights import weights_of
from peftbench.inputs.recipe import QuantizationSpec, TrainingSpec

FLOAT32_BYTES = 4


def load(
    pools: Pools, model: ModelSpec, training: TrainingSpec, adapter: tuple[TensorGroup, ...], total: int
) -> Kept:
    """Load base model and adapter, which take `total` bytes; what is not a weight of either is one block more.

    Returned is what can be cut: all but the constants of quantized weights. What is loaded on the CPU and moved comes
    tensor by tensor; else transformers 5 first asks for one block as large as the model.
    """
    quantized = set(quantized_weights(model, training.quantization))
    ordered = list(in_order(model))
    if training.transformers == "5" and training.loads_on_card:
        warm_up_bytes = sum(_expected_bytes(weight, training, weight in quantized) for weight in ordered)
        pools.go(pools.new(warm_up_bytes), warm_up_bytes)
    plain, cut = Kept(pools), Kept(pools)
    loaded = 0
    for weight in ordered:
        if training.quantization and weight in quantized:
            loaded += _quantize(cut, weight, training.quantization, weight.numel * training.dtype.bytes)
        else:
            size = weight.numel * training.dtype.bytes
            plain.come((size,))
            loaded += size
    if training.quantization and training.quantization.upcast_unquantized:
        loaded += _upcast(plain, training.dtype.bytes)
    for _, size in tensors_in_order(adapter):
        pools.new(size)
        loaded += size
    if total > loaded:
        pools.new(total - loaded)
    cut.blocks += plain.blocks
    return cut


def in_order(model: ModelSpec) -> Iterator[Weight]:
    """Each weight as often as the model has it: embeddings, then layer by layer, then norm and head."""
    weights = weights_of(model)
    inside = [(weight, set(weight.layers)) for weight in weights if weight.layers is not None]
    first = weights.index(inside[0][0]) if inside else 0
    yield from weights[:first]
    for layer in range(model.num_hidden_layers):
        yield from (weight for weight, layers in inside if layer in layers)
    yield from (weight for weight in weights[first:] if weight.layers is None)


def _expected_bytes(weight: Weight, training: TrainingSpec, is_quantized: bool) -> int:
    """What transformers expects a weight to take when it asks for one block as large as the model, and frees it.

    Source: caching_allocator_warmup in transformers/modeling_utils.py.
    """
    if is_quantized and training.quantization:
        return training.quantization.code_bytes(weight.numel)
    return weight.numel * training.dtype.bytes


def _quantize(cut: Kept, weight: Weight, quantization: QuantizationSpec, original: int) -> int:
    """Codes and constants of a matrix, beside the matrix itself where it is quantized on the card; what stays.

    A checkpoint has scales and zeros apart.
    """
    scheme = quantization.scheme
    codes = quantization.code_bytes(weight.numel)
    constants = scheme.constants_bytes(weight.out_features, weight.in_features, quantization)
    if scheme.checkpoint:
        cut.come((codes,))
        for size in (constants // 2, constants - constants // 2):
            cut.pools.new(size)
    else:
        ident = cut.pools.new(original)
        cut.come((codes,))
        cut.pools.new(constants)
        cut.pools.go(ident, original)
    return codes + constants


def _upcast(plain: Kept, itemsize: int) -> int:
    """prepare_model_for_kbit_training: each parameter in float32, then its 16-bit one goes; what it adds."""
    added = 0
    narrow, plain.blocks = plain.blocks, []
    for ident, size in narrow:
        wide = size * FLOAT32_BYTES // itemsize
        plain.come((wide,))
        plain.pools.go(ident, size)
        added += wide - size
    return added


def tensors_in_order(groups: tuple[TensorGroup, ...]) -> Iterator[tuple[TensorGroup, int]]:
    """Each tensor of the groups with its bytes, layer by layer; what stands alone before or after those of layers."""
    sizes = [(group, group.tensor_numel * group.dtype.bytes) for group in groups]
    several = [number for number, group in enumerate(groups) if group.count > 1] or [0, len(groups) - 1]
    first, last = several[0], several[-1] + 1
    yield from sizes[:first]
    for index in range(max((group.count for group in groups), default=0)):
        yield from ((group, size) for group, size in sizes[first:last] if index < group.count)
    yield from sizes[last:]
