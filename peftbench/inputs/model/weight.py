"""One parameter of a model: its name, its shape, what it is for, and the layers that have it."""

from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from math import prod


class Role(str, Enum):
    """What a weight is for, which decides who quantizes, trains or adapts it."""

    EMBEDDING = "embedding"  # tokens and learned positions
    LINEAR = "linear"  # the matrix of an nn.Linear or Conv1D: what PEFT's all-linear targets
    BIAS = "bias"  # of a linear layer
    NORM = "norm"  # weights and biases of RMSNorm and LayerNorm
    LM_HEAD = "lm_head"  # matrix and bias of the output head, when not tied
    ROUTER = "router"  # a bare parameter in transformers 5, not an nn.Linear
    EXPERTS = "experts"  # fused three-dimensional parameters and their biases
    CONV = "conv"  # weights and biases of nn.Conv1d: short convolutions, which all-linear does not target
    STATE = "state"  # of state-space layers and delta nets: a decay, a step and a skip a head or channel
    SINKS = "sinks"  # one learned attention logit a head (gpt-oss)

    __str__ = str.__str__


@dataclass(frozen=True)
class Weight:
    """One parameter and how often the model has it.

    `path` is the module's name within its layer ("self_attn.q_proj"), or within the model for weights outside
    the layers; `shape` is as PyTorch stores it; `layers` are the decoder layers that have it, None outside.
    """

    path: str
    parameter: str
    shape: tuple[int, ...]
    role: Role
    layers: tuple[int, ...] | None = None
    copies: int = 1
    """In a layer: its experts, of whose path the number is left out ("mlp.experts.up_proj")."""
    conv1d: bool = False
    """Stored as (in_features, out_features): transformers' Conv1D."""
    quantizable: bool = False
    """bitsandbytes replaces its module: `type(module) is nn.Linear` or Conv1D, and not the head.

    Source: replace_with_bnb_linear in transformers/integrations/bitsandbytes.py, version 5.
    """
    read: bool = False
    """A linear layer whose matrix the model's code hands to a kernel itself: it must not be codes."""

    @cached_property
    def module(self) -> str:
        """The last part of the name, which `target_modules` usually gives: "q_proj"."""
        return self.path.rsplit(".", 1)[-1]

    @property
    def of_expert(self) -> bool:
        """Whether it is a layer of an expert that is a module of its own."""
        return self.copies > 1

    @cached_property
    def count(self) -> int:
        """How many tensors of this kind the model has."""
        return 1 if self.layers is None else self.copies * len(self.layers)

    @cached_property
    def numel(self) -> int:
        """Elements of one tensor, as torch's numel()."""
        return prod(self.shape)

    @cached_property
    def total(self) -> int:
        """Elements of all `count` tensors."""
        return self.numel * self.count

    @property
    def out_features(self) -> int:
        """Width of the output of a linear weight."""
        return self.shape[1] if self.conv1d else self.shape[0]

    @property
    def in_features(self) -> int:
        """Width of the input of a linear weight."""
        return self.shape[0] if self.conv1d else self.shape[1]
