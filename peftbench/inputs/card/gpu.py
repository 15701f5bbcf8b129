"""A card: how much memory a process can use on it, and what it can compute."""

from dataclasses import dataclass, replace
from typing import Annotated, NamedTuple

from peftbench.base.codec import Count, Within, check_fields

Positive = Annotated[int, Within(1)]
ENOUGH = 8
"""Records from which the range seen replaces the general band: the next one then lies in it 7 times in 9.

Of n + 1 values in random order the last is neither the least nor the most with probability (n - 1) / (n + 1).
"""


class Seen(NamedTuple):
    """A constant that records decided: its value, the least and the most of them, and how many there were."""

    value: float
    low: float
    high: float
    records: int

    @property
    def has_range(self) -> bool:
        """Whether `low` and `high` are of enough records to be a band."""
        return self.records >= ENOUGH


class CardConstants(NamedTuple):
    """Constants of one card under one stack; None where its records do not decide one."""

    context_bytes: Seen | None = None
    """CUDA context and loaded kernels: device peak less reserved."""
    slack_factor: Seen | None = None
    """Reserved less allocated, by what estimate/parts/slack.py expects of the same run."""
    time: tuple[tuple[str, float], ...] = ()
    """Fields of estimate.time.TimeConstants by name."""
    time_error: float | None = None
    """Held out: the factor within which nine of ten left-out cases were; None where too few were left out."""
    said: str = ""
    """On what it was fitted and how well it does on what it was not: one sentence for the screen."""


class Kernels(NamedTuple):
    """What the libraries have kernels for on a card: columns of gpus.csv, which has their sources."""

    bfloat16: bool = True
    """Native; torch.cuda.is_bf16_supported()."""
    flash: bool = True
    """torch's SDPA has flash attention."""
    flash_attention_2: bool = True
    """The flash-attn package."""
    grouped_mm: bool = True
    """All experts are multiplied at once."""
    bitsandbytes: bool = True
    """4-bit weights and 8-bit optimizers."""
    llm_int8: bool = True
    fp8: bool = True
    """Products in FP8; transformers writes such weights out in bfloat16 elsewhere."""
    mxfp4: bool = True
    """The same of MXFP4, which Triton multiplies by."""


MODERN = Kernels()
BEFORE_AMPERE = Kernels(bfloat16=False, flash=False, flash_attention_2=False, grouped_mm=False, fp8=False)
"""Turing, the oldest that is still common."""


@dataclass(frozen=True, kw_only=True, repr=False)
class GpuSpec:
    """One card as CUDA reports it, not as the box says."""

    name: str
    """What to type: "t4"."""
    product: str
    """What the driver says: "Tesla T4"."""
    memory_bytes: Positive
    """torch.cuda.get_device_properties().total_memory."""
    memory_source: str
    """Where `memory_bytes` comes from; derived values say from what."""
    nominal_gb: Positive | None = None
    """What the box says; never calculated with."""
    compute_capability: tuple[Count, Count] | None = None
    """None when unknown or not CUDA."""
    listed_kernels: Kernels | None = None
    """What the catalogue says of `kernels`; None for a card that it does not list."""
    memory_bandwidth: Positive | None = None
    """Bytes per second."""
    l2_bytes: Positive | None = None
    """The cache that all multiprocessors share."""
    multiprocessors: Positive | None = None
    tensor_flops: Positive | None = None
    """Dense bfloat16 or float16 FLOP/s with float32 accumulation, per the data sheet."""
    float32_flops: Positive | None = None
    """Dense float32 FLOP/s without TF32, which torch leaves off by default, per the data sheet."""
    best_flops: Positive | None = None
    """The largest of them that was ever measured on a matrix product."""
    best_matmul_share: Annotated[float, Within(0.01, 10)] | None = None
    """What stands for `best_flops` by `tensor_flops` where nobody measured one; None: by the card's power."""
    power_w: Positive | None = None
    """What the board may draw."""
    link_bandwidth: Positive | None = None
    """Bytes per second that it sends over NVLink or Infinity Fabric, per the data sheet; None: sold without."""
    link_cards: Positive | None = None
    """How many cards a bridge of those joins; None: all of a machine."""
    network_bandwidth: Positive | None = None
    """Bytes per second of the network card beside each GPU; None: one for all of a machine."""
    pcie: str | None = None
    """The slot that it is made for: "pcie4-x16"; None: not known."""
    steps_published: bool = False
    """Published steps of this card hold the expected times to account."""
    context_bytes: Count = 0
    """CUDA context and loaded kernels, before any tensor."""
    in_use_bytes: Count = 0
    """Held by other processes; only known for the card in this machine."""
    is_cpu: bool = False
    """Not a card: other kernels, and neither a caching allocator nor a context."""
    calibration: CardConstants | None = None
    """What was measured on this card; None: what holds for cards in general."""
    notes: str = ""
    """What a reader of the figures should know; never calculated with."""

    def __post_init__(self) -> None:
        check_fields(self)

    def __repr__(self) -> str:
        """Its name and size stand for its fields."""
        return f"GpuSpec({self.name!r}, memory_bytes={self.memory_bytes})"

    @property
    def usable_bytes(self) -> int:
        """What torch's allocator can reserve: visible memory less context and others' use; 0 where they have it all."""
        return max(self.memory_bytes - self.context_bytes - self.in_use_bytes, 0)

    @property
    def kernels(self) -> Kernels:
        """What it has kernels for; a card that is not listed is taken as modern, unless its capability is older."""
        if self.listed_kernels is not None:
            return self.listed_kernels
        modern = self.compute_capability is None or self.compute_capability >= (8, 0)
        return MODERN if modern else BEFORE_AMPERE

    @property
    def has_bfloat16(self) -> bool:
        """Whether it computes in bfloat16 itself."""
        return self.kernels.bfloat16

    def calibrated(self, found: CardConstants) -> "GpuSpec":
        """The card with what was measured on it."""
        seen = found.context_bytes
        return replace(self, calibration=found, context_bytes=round(seen.value) if seen else self.context_bytes)
