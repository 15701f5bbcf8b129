"""Adapters that build matrices in every forward pass: the bytes, products and small kernels that takes.

Their time hardly depends on how many tokens there are, and no published time was fitted to it.
"""

from __future__ import annotations

from typing import NamedTuple

from peftbench.estimate.peft_types.tensors import adapted_weights, adapter_tensors
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.model.weights import Weight
from peftbench.inputs.recipe.training import TrainingSpec

BUILDS_WEIGHTS = ("loha", "lokr", "hira", "randlora", "fourierft", "waveft", "boft", "oft")
"""Adapters whose forward pass builds a matrix as large as the weight that it changes; DoRA does so for its norm."""
BUILT_BYTES = 24
"""Bytes moved for an element of such a matrix in a pass: written in float32 (4), scaled (8), cast (6), added (6)."""
BOFT_PRODUCTS = 3
"""Dense products of BOFT's square matrix in a forward pass, twice with the permutation and once with the identity, and
in backward as many, because neither of those has a gradient (peft/tuners/boft/layer.py, Linear.forward)."""


class BuiltWork(NamedTuple):
    """Of one micro-step."""

    bytes: int = 0
    flops: int = 0
    blocks: int = 0
    """Diagonal blocks that are copied into a matrix, each by a kernel of its own."""


def builds_weights(training: TrainingSpec) -> bool:
    """Whether the adapter's time depends on kernels over whole weights, which no published time was fitted to."""
    adapter = training.adapter
    return adapter is not None and (adapter.use_dora or adapter.peft_type in BUILDS_WEIGHTS)


def built_work(model: ModelSpec, training: TrainingSpec, tokens: int) -> BuiltWork:
    """What building takes in forward, recomputation and backward; `tokens` go through the layers."""
    if training.adapter is None or not builds_weights(training):
        return BuiltWork()
    built = 2 + int(training.gradient_checkpointing)
    carriers = adapted_weights(model, training.adapter)
    if training.adapter.peft_type == "boft":
        return _boft(carriers, built, tokens, built * _blocks(model, training))
    return BuiltWork(BUILT_BYTES * built * sum(w.total for w in carriers))


def _boft(carriers: tuple[Weight, ...], built: int, tokens: int, blocks: int) -> BuiltWork:
    """A square matrix as wide as the layer's input, by which the input is multiplied before the layer's own weight.

    That last product has gradients of both its factors: one product forward, two backward.
    """
    sides = [(w.count, w.shape[-1]) for w in carriers]
    square = sum(count * side**2 for count, side in sides)
    cubed = sum(count * side**3 for count, side in sides)
    return BuiltWork(
        bytes=BUILT_BYTES * built * square,
        flops=2 * built * BOFT_PRODUCTS * cubed + 2 * (built + 1) * tokens * square,
        blocks=blocks,
    )


def _blocks(model: ModelSpec, training: TrainingSpec) -> int:
    """torch.block_diag copies one block after the other. Shapes of the blocks: (1, blocks, side, side)."""
    if training.adapter is None:
        return 0
    found = adapter_tensors(model, training.adapter, training.dtype)
    return sum(group.count * group.shape[1] for group in found if len(group.shape) == 4)
