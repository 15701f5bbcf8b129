"""Linear layers of the model with their adapter: which program runs for which PEFT type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from importlib import import_module

from peftbench.estimate.peft_forward.lora import dora, generic
from peftbench.estimate.peft_forward.virtual_tokens import PREFIXES, PROMPTS
from peftbench.estimate.peft_types.shapes import Options, Site
from peftbench.estimate.peft_types.targets import is_feedforward
from peftbench.estimate.peft_types.tensors import options_of
from peftbench.estimate.tape.autograd import Tensor
from peftbench.estimate.tape.modules import Context, base_linear
from peftbench.inputs.recipe import AdapterSpec

_MODULES: Mapping[str, tuple[str, ...]] = {
    "lora": ("lora",),
    "vectors": ("ia3", "miss", "beft", "road"),
    "low_rank": (
        "adalora", "vera", "pvera", "delora", "gralora", "vblora", "lily", "deft", "psoft", "osf", "unilora",
        "tinylora", "poly",
    ),
    "changed_weights": (
        "loha", "lokr", "hira", "fourierft", "hra", "oft", "boft", "randlora", "c3a", "waveft", "glora", "shira",
        "supertuning", "peanut",
    ),
}
FORWARDS = {peft_type: module for module, peft_types in _MODULES.items() for peft_type in peft_types}
"""The module whose function of that name says what each PEFT type on linear layers keeps for backward."""

WITHOUT_LINEAR = ("ln_tuning", "trainable_tokens", *PROMPTS, *PREFIXES)
"""Types whose layers run as the base model's, with more tokens, or with trained norms or embeddings."""


def activations_modelled(adapter: AdapterSpec | None) -> bool:
    """Whether the adapter's forward pass is known here; if not, activations come from a generic adapter."""
    return adapter is None or adapter.peft_type in FORWARDS or adapter.peft_type in WITHOUT_LINEAR


@lru_cache(maxsize=64)
def forward_of(peft_type: str) -> Callable[[Context, Site, Options, Tensor], Tensor]:
    """The program of a PEFT type, loaded when it is first asked for; `generic` where there is none of its own."""
    if peft_type not in FORWARDS:
        return generic
    module = import_module(f"peftbench.estimate.peft_forward.{FORWARDS[peft_type]}")
    forward: Callable[[Context, Site, Options, Tensor], Tensor] = getattr(module, peft_type)
    return forward


def read_linear(c: Context, name: str, x: Tensor, out_features: int, bias: bool = False) -> Tensor:
    """A linear layer whose matrix is never codes, since the model's code reads it."""
    return linear(replace(c, quantization=None, weight_itemsize=c.unquantized_itemsize), name, x, out_features, bias)


def linear(c: Context, name: str, x: Tensor, out_features: int, bias: bool = False) -> Tensor:
    """A named linear layer of the model with its adapter, if it has one."""
    if name not in c.targets or c.adapter is None:
        return base_linear(c, x, out_features, bias)
    options = options_of(c.adapter)
    site = Site(name, x.width, out_features, 1, bias, is_feedforward(name, c.model, options))
    forward = dora if c.adapter.use_dora else forward_of(c.adapter.peft_type)
    return forward(c, site, options, x)
