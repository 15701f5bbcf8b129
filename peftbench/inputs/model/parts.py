"""What layers are made of: a mixer, in which tokens see each other, and a feed-forward network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

DELTA_CHUNK = 64
"""Tokens that a gated delta net computes at once: chunk_size of transformers' torch_chunk_gated_delta_rule."""


class Attention(NamedTuple):
    """Attention of queries to the keys before them, all or those within a window."""

    heads: int
    key_value_heads: int
    head_dim: int
    rotary_dim: int = 0
    """Channels of each head that are rotated; 0 where nothing is."""
    window: int | None = None
    output_gate: bool = False
    """The query's projection is twice as wide: the other half gates the output."""

    @property
    def query_size(self) -> int:
        """Channels of all query heads."""
        return self.heads * self.head_dim

    @property
    def key_value_size(self) -> int:
        """Channels of all key heads, which are as many as those of all value heads."""
        return self.key_value_heads * self.head_dim

    @property
    def value_dim(self) -> int:
        """Channels of each head's values."""
        return self.head_dim

    @property
    def stored(self) -> Attention:
        """As far as its weights go."""
        return self._replace(rotary_dim=0, window=None)


class LatentAttention(NamedTuple):
    """Attention whose keys and values are expanded from one latent a token, which is what a cache keeps (DeepSeek)."""

    heads: int
    query_rank: int
    """Channels of the latent of all queries; 0 where one matrix makes them."""
    latent: int
    """Channels of the latent of keys and values."""
    plain_dim: int
    """Channels of each head's queries and keys that are not rotated."""
    rotary_dim: int
    """Those that are; all heads share one such key."""
    value_dim: int
    rotation: Literal["halves", "pairs", "complex"] = "pairs"
    """Which channels are rotated together, and in which numbers."""

    @property
    def key_value_heads(self) -> int:
        """As many as of queries, once expanded."""
        return self.heads

    @property
    def head_dim(self) -> int:
        """Channels of each head's queries and keys."""
        return self.plain_dim + self.rotary_dim

    @property
    def query_size(self) -> int:
        """Channels of all query heads."""
        return self.heads * self.head_dim

    @property
    def expanded(self) -> int:
        """Channels that are made of a latent: plain keys and values of all heads."""
        return self.heads * (self.plain_dim + self.value_dim)

    @property
    def window(self) -> None:
        """None: every token sees all before it."""
        return None

    @property
    def stored(self) -> LatentAttention:
        """As far as its weights go."""
        return self._replace(rotation="pairs")


class ShortConv(NamedTuple):
    """A convolution over a few tokens between two gates (LFM2)."""

    width: int
    kernel: int
    """Tokens that one sees, itself among them."""
    bias: bool = False

    @property
    def stored(self) -> ShortConv:
        """As far as its weights go."""
        return self


class StateSpace(NamedTuple):
    """Mamba 2: a convolution, then a scan whose state is a matrix a head, computed in chunks of the sequence."""

    heads: int
    head_dim: int
    state: int
    groups: int
    """Groups of heads that share what writes to the state and what reads it."""
    kernel: int
    chunk: int
    """Tokens of a chunk; sequences are padded to whole ones."""
    bias: bool = False
    conv_bias: bool = True
    output_bias: bool = False
    norm: Literal["gate first", "gate last", "none"] = "gate first"
    """Whether what was scanned is normed, and when it is gated."""

    @property
    def inner(self) -> int:
        """Channels of all heads."""
        return self.heads * self.head_dim

    @property
    def conv_width(self) -> int:
        """Channels that are convolved: the heads', and what writes to and reads the state."""
        return self.inner + 2 * self.groups * self.state

    @property
    def stored(self) -> StateSpace:
        """As far as its weights go."""
        return self._replace(chunk=0)


class Hybrid(NamedTuple):
    """Attention and a state-space layer side by side, whose outputs are added (Falcon-H1)."""

    attention: Attention
    state_space: StateSpace

    @property
    def stored(self) -> Hybrid:
        """As far as its weights go."""
        return Hybrid(self.attention.stored, self.state_space.stored)


class DeltaNet(NamedTuple):
    """A gated delta net: each head has a state, which forgets and is corrected by what a token says otherwise."""

    key_heads: int
    value_heads: int
    key_head_dim: int
    value_head_dim: int
    kernel: int
    """Tokens that the convolution before it sees."""

    @property
    def key_size(self) -> int:
        """Channels of all keys, which are as many as those of all queries."""
        return self.key_heads * self.key_head_dim

    @property
    def value_size(self) -> int:
        """Channels of all values."""
        return self.value_heads * self.value_head_dim

    @property
    def convolved_size(self) -> int:
        """Channels of queries, keys and values, which the convolution runs over."""
        return 2 * self.key_size + self.value_size

    @property
    def state_size(self) -> int:
        """Elements of the states of all heads, for one sequence."""
        return self.value_heads * self.key_head_dim * self.value_head_dim

    @property
    def stored(self) -> DeltaNet:
        """As far as its weights go."""
        return self


class Mlp(NamedTuple):
    """A gated or plain network, which every token goes through."""

    inner: int


class Experts(NamedTuple):
    """Networks of which each token goes through some."""

    number: int
    per_token: int
    inner: int
    shared: int = 0
    """Channels of the network beside them, which every token goes through; 0 where there is none."""


AnyAttention = Attention | LatentAttention
"""Mixers that score pairs of tokens."""
Mixer = AnyAttention | ShortConv | StateSpace | Hybrid | DeltaNet
PACKAGES: Mapping[type[Mixer], tuple[str, ...]] = {
    ShortConv: ("causal-conv1d",), StateSpace: ("causal-conv1d", "mamba-ssm"), Hybrid: ("causal-conv1d", "mamba-ssm"),
    DeltaNet: ("causal-conv1d", "flash-linear-attention"),
}  # fmt: skip
"""What holds kernels for a mixer; where it is not installed, transformers computes the same in torch."""
FeedForward = Mlp | Experts


def without_kernels(packages: Iterable[str]) -> str:
    """The note on a price without the kernels of these packages."""
    names = ", ".join(sorted(set(packages)))
    return f"Priced without the kernels of {names}: in torch alone, which keeps more than they do."


class Layer(NamedTuple):
    """A layer by its parts: those that are equal need the same memory."""

    mixer: Mixer | None
    """None in a layer that is a feed-forward network only."""
    feed_forward: FeedForward | None
    """None in a layer that is a mixer only."""

    @property
    def attention(self) -> AnyAttention | None:
        """Its mixer, where that scores pairs of tokens."""
        mixer = self.mixer.attention if isinstance(self.mixer, Hybrid) else self.mixer
        return mixer if isinstance(mixer, AnyAttention) else None

    @property
    def state_space(self) -> StateSpace | None:
        """Its mixer, where that scans."""
        mixer = self.mixer.state_space if isinstance(self.mixer, Hybrid) else self.mixer
        return mixer if isinstance(mixer, StateSpace) else None

    @property
    def slides(self) -> bool:
        """It attends within a window."""
        return isinstance(self.mixer, Attention) and self.mixer.window is not None

    @property
    def unmasked(self) -> Layer:
        """The layer where its window needs no mask."""
        return self._replace(mixer=self.mixer._replace(window=None)) if isinstance(self.mixer, Attention) else self
