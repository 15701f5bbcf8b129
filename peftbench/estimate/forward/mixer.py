"""What a layer mixes its tokens by: one function for each kind of mixer in `inputs/model/parts.py`."""

from __future__ import annotations

from collections.abc import Callable

from peftbench.estimate.forward.mixers.convolution import short_conv
from peftbench.estimate.forward.mixers.delta_net import delta_net
from peftbench.estimate.forward.mixers.self_attention import self_attention
from peftbench.estimate.forward.mixers.state_space import state_space
from peftbench.estimate.tape.autograd import Tensor
from peftbench.estimate.tape.modules import Context
from peftbench.inputs.model.parts import Attention, DeltaNet, Hybrid, Mixer, ShortConv, StateSpace


def mix(c: Context, hidden_states: Tensor) -> Tensor:
    """Run the layer's mixer on the normed stream."""
    assert c.layer.mixer is not None
    return MIXERS[type(c.layer.mixer)](c, hidden_states)


def _side_by_side(c: Context, hidden_states: Tensor) -> Tensor:
    """Falcon-H1: both read the normed stream, each scaled before and after."""
    scanned = c.tape.scale(state_space(c, hidden_states))
    attended = c.tape.scale(self_attention(c, c.tape.scale(hidden_states)))
    return c.tape.add(scanned, attended)


MIXERS: dict[type[Mixer], Callable[[Context, Tensor], Tensor]] = {
    Attention: self_attention, ShortConv: short_conv, StateSpace: state_space, Hybrid: _side_by_side,
    DeltaNet: delta_net,
}  # fmt: skip
