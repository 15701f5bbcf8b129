"""Linear layers of the model with their adapter: which program runs for which PEFT type."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from peftbench.estimate.peft_forward import changed_weights as weights
from peftbench.estimate.peft_forward import low_rank, vectors
from peftbench.estimate.peft_forward.lora import dora, generic, lora
from peftbench.estimate.peft_forward.virtual_tokens import PREFIXES, PROMPTS
from peftbench.estimate.peft_types.shapes import Options, Site
from peftbench.estimate.peft_types.targets import matches
from peftbench.estimate.peft_types.tensors import options_of
from peftbench.estimate.tape.autograd import Tensor
from peftbench.estimate.tape.modules import Context, base_linear
from peftbench.inputs.recipe.adapter import AdapterSpec

FORWARDS: Mapping[str, Callable[[Context, Site, Options, Tensor], Tensor]] = {
    "lora": lora,
    "ia3": vectors.ia3,
    "adalora": low_rank.adalora,
    "vera": low_rank.vera,
    "pvera": low_rank.pvera,
    "miss": vectors.miss,
    "delora": low_rank.delora,
    "gralora": low_rank.gralora,
    "vblora": low_rank.vblora,
    "lily": low_rank.lily,
    "deft": low_rank.deft,
    "beft": vectors.beft,
    "road": vectors.road,
    "loha": weights.loha,
    "lokr": weights.lokr,
    "hira": weights.hira,
    "fourierft": weights.fourierft,
    "hra": weights.hra,
    "oft": weights.oft,
    "boft": weights.boft,
    "randlora": weights.randlora,
    "c3a": weights.c3a,
}
"""What each PEFT type on linear layers keeps for backward; other types run as `generic`."""

WITHOUT_LINEAR = ("ln_tuning", *PROMPTS, *PREFIXES)
"""Types whose layers run as the base model's, with more tokens or trained norms."""


def activations_modelled(adapter: AdapterSpec | None) -> bool:
    """Whether the adapter's forward pass is known here; if not, activations come from a generic adapter."""
    return adapter is None or adapter.peft_type in FORWARDS or adapter.peft_type in WITHOUT_LINEAR


def linear(c: Context, name: str, x: Tensor, out_features: int, bias: bool = False) -> Tensor:
    """A named linear layer of the model with its adapter, if it has one."""
    if name not in c.targets or c.adapter is None:
        return base_linear(c, x, out_features, bias)
    feedforward = matches(name, c.model.family.targets.ia3_feedforward)
    site = Site(name, x.width, out_features, 1, bias, feedforward)
    forward = dora if c.adapter.use_dora else FORWARDS.get(c.adapter.peft_type, generic)
    return forward(c, site, options_of(c.adapter), x)
