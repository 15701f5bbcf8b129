"""The weights of mixers that carry a state from token to token instead of keys and values."""

from __future__ import annotations

from collections.abc import Iterator

from peftbench.inputs.model.listing.attention import attention_weights
from peftbench.inputs.model.listing.modules import linear_weights, norm_weights
from peftbench.inputs.model.parts import Hybrid, ShortConv, StateSpace
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.model.weight import Role, Weight


def short_conv_weights(model: ModelSpec, part: ShortConv, layers: tuple[int, ...]) -> Iterator[Weight]:
    """Both gates and the stream between them from one projection, the convolution, the output."""
    hidden, layout = model.hidden_size, model.family.layout
    path = layout.recurrent
    yield from linear_weights(f"{path}in_proj", 3 * part.width, hidden, part.bias, layout, layers)
    yield from conv_weights(f"{path}conv", part.width, part.kernel, part.bias, layers)
    yield from linear_weights(f"{path}out_proj", hidden, part.width, part.bias, layout, layers)


def state_space_weights(model: ModelSpec, part: StateSpace, layers: tuple[int, ...]) -> Iterator[Weight]:
    """Gate, convolved channels and steps from one projection; the convolution; the scan; the norm; the output."""
    hidden, layout = model.hidden_size, model.family.layout
    path, projected = layout.recurrent, part.inner + part.conv_width + part.heads
    yield from linear_weights(f"{path}in_proj", projected, hidden, part.bias, layout, layers)
    yield from conv_weights(f"{path}conv1d", part.conv_width, part.kernel, part.conv_bias, layers)
    for name in ("dt_bias", "A_log", "D"):
        yield Weight(path.rstrip("."), name, (part.heads,), Role.STATE, layers)
    if part.norm != "none":
        yield from norm_weights(model, f"{path}norm", (part.inner,), layers)
    yield from linear_weights(f"{path}out_proj", hidden, part.inner, part.output_bias, layout, layers, read=True)


def hybrid_weights(model: ModelSpec, part: Hybrid, layers: tuple[int, ...]) -> Iterator[Weight]:
    """Those of both."""
    yield from state_space_weights(model, part.state_space, layers)
    yield from attention_weights(model, part.attention, layers)


def conv_weights(path: str, channels: int, kernel: int, bias: bool, layers: tuple[int, ...]) -> Iterator[Weight]:
    """nn.Conv1d of each channel on its own."""
    yield Weight(path, "weight", (channels, 1, kernel), Role.CONV, layers)
    if bias:
        yield Weight(path, "bias", (channels,), Role.CONV, layers)
