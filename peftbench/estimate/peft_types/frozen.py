"""Tensors that an adapter keeps on the card without training them: projections, indices, copies of weights.

Each function yields (elements, kind) for one module, or for the whole model; sources as in shapes.py.
FourierFT and WaveFT keep their indices in host memory, so they are not here.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from peftbench.estimate.peft_types import shapes
from peftbench.estimate.peft_types.prompts import key_value_width
from peftbench.estimate.peft_types.shapes import Options, Site, ceil_div
from peftbench.inputs.model.spec import ModelSpec


class Kind(Enum):
    """The dtype of a frozen tensor."""

    ADAPTER = "as the adapter"
    BASE = "as the base weights"
    FLOAT32 = "float32"
    INT64 = "int64"
    INT32 = "int32"


Frozen = Iterable[tuple[int, Kind]]
Sites = tuple[Site, ...]


def oft(s: Site, o: Options) -> Frozen:
    """Row and column of each element above the diagonal of a block."""
    block = shapes.oft_block(s, o)
    yield (block * (block - 1), Kind.INT64)


def glora(s: Site, o: Options) -> Frozen:
    """Zeros in place of what is not trained: C, D and E where the module has no bias, and any that is none."""
    if o["config_A_B"] == "none":
        yield (2 * s.k * s.m, Kind.BASE)
    if not s.bias or o["config_C"] == "none":
        yield (s.k, Kind.BASE)
    if not s.bias or o["config_D_E"] == "none":
        yield (2 * s.m, Kind.BASE)


def lora(s: Site, o: Options) -> Frozen:
    """MiCA's B: the last singular vectors of the weight."""
    if o["init_lora_weights"] == "mica":
        yield (s.m * o["r"] * s.branches, Kind.ADAPTER)


def psoft(s: Site, o: Options) -> Frozen:
    """Places of the rotation's values, B, and A: of a whole decomposition all of Vh is kept, of which A is a part."""
    r = o["r"]
    if o["psoft_orth"]:
        yield (r * (r - 1), Kind.INT64)
    yield ((min(s.k, s.m) if o["psoft_svd"] == "full" else r) * s.k + r * s.m, Kind.FLOAT32)


def osf(s: Site, o: Options) -> Frozen:
    """The trained part as it was, and of a matrix that is not square the longer factor of the frozen part."""
    kept, trained = shapes.osf_ranks(s, o)
    yield (trained * (s.k + s.m + 1), Kind.ADAPTER)
    if s.k != s.m:
        yield (kept * max(s.k, s.m), Kind.ADAPTER)


def tinylora(s: Site, o: Options) -> Frozen:
    """A truncated decomposition of the weight, and a random r x r matrix for each trained value."""
    r = min(o["r"], s.k, s.m)
    yield (r * (s.k + s.m) + o["u"] * r * r, Kind.ADAPTER)


def vera(sites: Sites, model: ModelSpec, o: Options) -> Frozen:
    """One pair of random matrices, large enough for the widest target."""
    yield (o["r"] * (max(s.k for s in sites) + max(s.m for s in sites)), Kind.ADAPTER)


def pvera(sites: Sites, model: ModelSpec, o: Options) -> Frozen:
    """As VeRA, with mean and variance in A."""
    yield (o["r"] * (2 * max(s.k for s in sites) + max(s.m for s in sites)), Kind.ADAPTER)


def randlora(sites: Sites, model: ModelSpec, o: Options) -> Frozen:
    """Random bases that span the smaller dimension in full rank."""
    smaller, larger = sorted((max(s.k for s in sites), max(s.m for s in sites)))
    yield (o["r"] * smaller + larger * ceil_div(smaller, o["r"]) * o["r"], Kind.ADAPTER)


def cartridge(sites: Sites, model: ModelSpec, o: Options) -> Frozen:
    yield (o["num_frozen_tokens"] * 2 * model.num_hidden_layers * key_value_width(model), Kind.FLOAT32)
