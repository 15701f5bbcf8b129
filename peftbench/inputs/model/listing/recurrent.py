"""The weights of mixers that carry a state from token to token instead of keys and values."""

from __future__ import annotations

from collections.abc import Iterator

from peftbench.inputs.model.listing.modules import linear_weights
from peftbench.inputs.model.parts import ShortConv
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.model.weight import Role, Weight


def short_conv_weights(model: ModelSpec, part: ShortConv, layers: tuple[int, ...]) -> Iterator[Weight]:
    """Both gates and the stream between them from one projection, the convolution, the output."""
    hidden, layout = model.hidden_size, model.family.layout
    path = layout.recurrent
    yield from linear_weights(f"{path}in_proj", 3 * part.width, hidden, part.bias, layout, layers)
    yield from conv_weights(f"{path}conv", part.width, part.kernel, part.bias, layers)
    yield from linear_weights(f"{path}out_proj", hidden, part.width, part.bias, layout, layers)


def conv_weights(path: str, channels: int, kernel: int, bias: bool, layers: tuple[int, ...]) -> Iterator[Weight]:
    """nn.Conv1d of each channel on its own."""
    yield Weight(path, "weight", (channels, 1, kernel), Role.CONV, layers)
    if bias:
        yield Weight(path, "bias", (channels,), Role.CONV, layers)
