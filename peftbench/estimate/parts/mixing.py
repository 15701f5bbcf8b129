"""What the mixers of a model's layers multiply and keep beside their weights: one function for each kind of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from peftbench.inputs.model.parts import (
    DELTA_CHUNK,
    Attention,
    DeltaNet,
    Hybrid,
    LatentAttention,
    Mixer,
    ShortConv,
    StateSpace,
)
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe import DType


class Mixing(NamedTuple):
    """One mixer beside its weights; elements have the model's type where nothing else is named."""

    pair_products: int = 0
    """Multiplications for each pair of tokens of which one sees the other: of query and key, and of score and value."""
    window: int | None = None
    """Tokens that each token sees, and that are kept; None: all before it."""
    keys: int = 0
    """Elements that generate() keeps of each token: of keys, and of values."""
    values: int = 0
    past_products: int = 0
    """Multiplications for each kept token when the next one is generated: of what is kept to what it stands for."""
    token_products: int = 0
    """Multiplications for each token with what is kept of the sequence, however long that is."""
    state: int = 0
    """Elements that generate() keeps of each sequence, however long it is."""
    float32_state: int = 0
    """The same in float32, whatever the model's type."""

    def seen(self, length: int) -> int:
        """Tokens of so many that the last one sees, and that are kept."""
        return min(length, self.window or length)

    def token_bytes(self, dtype: DType) -> int:
        """Keys and values of one token."""
        return (self.keys + self.values) * dtype.bytes

    def state_bytes(self, dtype: DType) -> int:
        """What is kept of one sequence, however long it is."""
        return self.state * dtype.bytes + self.float32_state * DType.FLOAT32.bytes


def _attention(part: Attention) -> Mixing:
    """Keys and values are kept as they are multiplied."""
    width = part.key_value_size
    return Mixing(pair_products=2 * part.query_size, window=part.window, keys=width, values=width)


def _latent_attention(part: LatentAttention) -> Mixing:
    """The latent and the rotated key are kept, and expanded to all heads in every step.

    Source: DeepseekV3Attention.forward of transformers 5.23; versions before kept expanded keys and values.
    """
    pair = part.query_size + part.heads * part.value_dim
    expanding = part.latent * part.expanded
    return Mixing(pair_products=pair, keys=part.latent, values=part.rotary_dim, past_products=expanding)


def _short_conv(part: ShortConv) -> Mixing:
    """The tokens that the next one's convolution sees are kept."""
    return Mixing(token_products=part.width * part.kernel, state=part.width * part.kernel)


def _state_space(part: StateSpace) -> Mixing:
    """Products within a chunk, and with the state it starts from and leaves; one token after another needs fewer."""
    within = part.heads * part.chunk * (part.state + part.head_dim)
    state, convolved = part.inner * part.state, part.conv_width * part.kernel
    return Mixing(token_products=within + 2 * state + convolved, state=convolved, float32_state=state)


def _hybrid(part: Hybrid) -> Mixing:
    scanned = _state_space(part.state_space)
    return _attention(part.attention)._replace(
        token_products=scanned.token_products, state=scanned.state, float32_state=scanned.float32_state
    )


def _delta_net(part: DeltaNet) -> Mixing:
    """The state is read twice and written once; within a chunk tokens meet as pairs, in products and in solving.

    Generation keeps what the convolution sees, and the state in float32.
    """
    key, value = part.key_head_dim, part.value_head_dim
    in_chunk = DELTA_CHUNK * (2 * key + value + (key + value) // 2)
    convolved = part.convolved_size * part.kernel
    return Mixing(
        token_products=3 * part.state_size + part.value_heads * in_chunk + convolved,
        state=convolved, float32_state=part.state_size,
    )  # fmt: skip


MIXINGS: dict[type[Mixer], Callable[[Any], Mixing]] = {
    Attention: _attention, LatentAttention: _latent_attention, ShortConv: _short_conv, StateSpace: _state_space,
    Hybrid: _hybrid, DeltaNet: _delta_net,
}  # fmt: skip
"""By the kind of mixer in `inputs/model/parts.py`."""


def mixing_of(mixer: Mixer | None) -> Mixing:
    """That of one layer; nothing where it has no mixer."""
    return MIXINGS[type(mixer)](mixer) if mixer else Mixing()


def cache_bytes(model: ModelSpec, dtype: DType, length: int, *, slides: bool) -> int:
    """What all layers keep of one sequence of so many tokens; those of a window keep no more once they slide."""
    return sum(
        layers * ((mixing.seen(length) if slides else length) * mixing.token_bytes(dtype) + mixing.state_bytes(dtype))
        for mixing, layers in mixings_of(model).items()
    )


@lru_cache(maxsize=256)
def mixings_of(model: ModelSpec) -> Counter[Mixing]:
    """How many layers have each."""
    return Counter(mixing_of(layer.mixer) for layer in model.layers)
