"""What layers are made of: a mixer, in which tokens see each other, and a feed-forward network."""

from __future__ import annotations

from typing import NamedTuple


class Attention(NamedTuple):
    """Attention of queries to the keys before them, all or those within a window."""

    heads: int
    key_value_heads: int
    head_dim: int
    rotary_dim: int = 0
    """Channels of each head that are rotated; 0 where nothing is."""
    window: int | None = None

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


class Mlp(NamedTuple):
    """A gated or plain network, which every token goes through."""

    inner: int


class Experts(NamedTuple):
    """Networks of which each token goes through some."""

    number: int
    per_token: int
    inner: int


Mixer = Attention | ShortConv
FeedForward = Mlp | Experts


class Layer(NamedTuple):
    """A layer by its parts: those that are equal need the same memory."""

    mixer: Mixer | None
    """None in a layer that is a feed-forward network only."""
    feed_forward: FeedForward | None
    """None in a layer that is a mixer only."""

    @property
    def attention(self) -> Attention | None:
        """Its mixer, where that scores pairs of tokens."""
        return self.mixer if isinstance(self.mixer, Attention) else None

    @property
    def slides(self) -> bool:
        """It attends within a window."""
        return isinstance(self.mixer, Attention) and self.mixer.window is not None

    @property
    def unmasked(self) -> Layer:
        """The layer where its window needs no mask."""
        return self._replace(mixer=self.mixer._replace(window=None)) if isinstance(self.mixer, Attention) else self
