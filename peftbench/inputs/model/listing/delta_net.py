"""The weights of gated delta nets."""

from __future__ import annotations

from collections.abc import Iterator

from peftbench.inputs.model.listing.modules import linear_weights
from peftbench.inputs.model.listing.recurrent import conv_weights
from peftbench.inputs.model.parts import DeltaNet
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.model.weight import Role, Weight


def delta_net_weights(model: ModelSpec, part: DeltaNet, layers: tuple[int, ...]) -> Iterator[Weight]:
    """Projections, a convolution, the decay and the bias of each head, a norm over its channels."""
    layout, names = model.family.layout, model.family.layout.delta
    for name, width in projections(model, part).items():
        yield from linear_weights(names.block + name, width, model.hidden_size, False, layout, layers)
    yield from conv_weights(f"{names.block}conv1d", part.convolved_size, part.kernel, False, layers)
    for parameter in ("dt_bias", "A_log"):
        yield Weight(names.block.rstrip("."), parameter, (part.value_heads,), Role.STATE, layers)
    yield Weight(names.block + names.norm, "weight", (part.value_head_dim,), Role.NORM, layers)
    yield from linear_weights(names.block + names.output, model.hidden_size, part.value_size, False, layout, layers)


def projections(model: ModelSpec, part: DeltaNet) -> dict[str, int]:
    """The width of each projection of the stream."""
    names, rate = model.family.layout.delta, part.value_heads
    widths = [part.key_size, part.key_size, part.value_size]
    if len(names.qkv) == 1:
        widths = [sum(widths) + (0 if names.gate else part.value_size)]
    gate = {names.gate: part.value_size} if names.gate else {}
    rates = (rate, rate) if len(names.rates) > 1 else (2 * rate,)
    return {**dict(zip(names.qkv, widths, strict=True)), **gate, **dict(zip(names.rates, rates, strict=True))}
