"""What a layer mixes its tokens by: one function for each kind of mixer in `inputs/model/parts.py`."""

from __future__ import annotations

from collections.abc import Callable

from peftbench.estimate.forward.mixers.attention import attend_to_past
from peftbench.estimate.forward.mixers.convolution import short_conv
from peftbench.estimate.forward.mixers.delta_net import delta_net
from peftbench.estimate.forward.mixers.latent_attention import attend_to_latents, latent_attention
from peftbench.estimate.forward.mixers.self_attention import self_attention
from peftbench.estimate.forward.mixers.state_space import state_space
from peftbench.estimate.tape.autograd import Tensor
from peftbench.estimate.tape.modules import Context
from peftbench.inputs.model.parts import (
    AnyAttention,
    Attention,
    DeltaNet,
    Hybrid,
    LatentAttention,
    Mixer,
    ShortConv,
    StateSpace,
)

PASTS: dict[type[AnyAttention], Callable[[Context, Tensor, Tensor, Tensor], None]] = {
    Attention: attend_to_past, LatentAttention: attend_to_latents,
}  # fmt: skip
"""What reads a layer's cache for one new token."""


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
    Attention: self_attention, LatentAttention: latent_attention, ShortConv: short_conv, StateSpace: state_space,
    Hybrid: _side_by_side, DeltaNet: delta_net,
}  # fmt: skip
