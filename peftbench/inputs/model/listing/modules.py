"""The weights of a linear layer and of a norm, which every part of a model is made of."""

from __future__ import annotations

from collections.abc import Iterator

from peftbench.inputs.model.family import Layout
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.model.weight import Role, Weight


def linear_weights(
    path: str, out: int, into: int, bias: bool, layout: Layout, layers: tuple[int, ...] | None, *, read: bool = False
) -> Iterator[Weight]:
    """The matrix, as nn.Linear or Conv1D stores it, and the bias if it has one."""
    shape = (into, out) if layout.conv1d else (out, into)
    plain = layout.plain_linear and not read
    yield Weight(path, "weight", shape, Role.LINEAR, layers, conv1d=layout.conv1d, quantizable=plain, read=read)
    if bias:
        yield Weight(path, "bias", (out,), Role.BIAS, layers)


def norm_weights(
    model: ModelSpec, path: str, shape: tuple[int, ...], layers: tuple[int, ...] | None
) -> Iterator[Weight]:
    """The weight and, of LayerNorm, the bias; OLMo's norms have neither."""
    if model.family.norm != "unweighted":
        yield Weight(path, "weight", shape, Role.NORM, layers)
    if model.family.norm in ("layer_norm", "layer_norm_1p"):
        yield Weight(path, "bias", shape, Role.NORM, layers)
