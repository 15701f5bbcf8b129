"""How many GPUs share one model, and what each of them keeps of it."""

from __future__ import annotations

from dataclasses import dataclass

from peftbench.base.errors import SpecError, did_you_mean

STRATEGIES = ("none", "ddp", "zero1", "zero2", "zero3", "fsdp", "fsdp-grad-op", "tensor")
"""One GPU; data parallel; DeepSpeed's three stages; FSDP2 with FULL_SHARD or SHARD_GRAD_OP; tensor parallel."""
SHARDS_OPTIMIZER = ("zero1", "zero2", "zero3", "fsdp", "fsdp-grad-op")
SHARDS_GRADIENTS = ("zero2", "zero3", "fsdp", "fsdp-grad-op")
SHARDS_WEIGHTS = ("zero3", "fsdp", "fsdp-grad-op")
LINKS = ("nvlink", "pcie")
MAX_GPUS = 4096
GPUS_PER_NODE = 8
"""As most machines have them."""


@dataclass(frozen=True, kw_only=True)
class ParallelismSpec:
    """`gpus` counts all GPUs of all nodes; each runs a micro-batch of its own, unless the strategy is "tensor"."""

    gpus: int = 1
    nodes: int = 1
    strategy: str = "none"
    cpu_offload: bool = False
    """Weights, gradients and optimizer states stay in the host's memory while no GPU needs them."""
    link: str | None = None
    """What the GPUs of a node talk over; None: whatever the card has."""

    def __post_init__(self) -> None:
        for field in ("gpus", "nodes"):
            if getattr(self, field) < 1:
                raise SpecError(f"{field} must be at least 1, not {getattr(self, field)}.")
        if self.strategy not in STRATEGIES:
            raise SpecError(f"unknown strategy {self.strategy!r}.", did_you_mean(self.strategy, STRATEGIES))
        if self.link is not None and self.link not in LINKS:
            raise SpecError(f"unknown link {self.link!r}.", did_you_mean(self.link, LINKS))
        self._check_counts()
        if self.cpu_offload and self.strategy == "tensor":
            raise SpecError("tensor parallelism keeps every part on its GPU.", "Leave out --cpu-offload, or add GPUs.")
        if self.cpu_offload and not self.shards_optimizer:
            raise SpecError(
                f"{self.strategy!r} cannot offload to the CPU: it shards nothing.",
                f"Choose one of {', '.join(SHARDS_OPTIMIZER)}.",
            )

    def _check_counts(self) -> None:
        if self.gpus > MAX_GPUS:
            raise SpecError(f"gpus cannot be above {MAX_GPUS}, not {self.gpus}.")
        if self.gpus % self.nodes:
            raise SpecError(
                f"{self.counted} cannot be spread evenly over {self.nodes} nodes.",
                f"gpus is the count over all nodes: give a multiple, as in --gpus {8 * self.nodes}.",
            )
        if self.strategy == "none" and self.gpus > 1:
            raise SpecError(f"{self.gpus} GPUs need a strategy.", f"Choose one of {', '.join(STRATEGIES[1:])}.")

    @property
    def counted(self) -> str:
        """The GPUs in words: "1 GPU", "8 GPUs"."""
        return f"{self.gpus} GPU{'s' if self.gpus > 1 else ''}"

    @property
    def gpus_per_node(self) -> int:
        """GPUs of one node."""
        return self.gpus // self.nodes

    @property
    def shards_optimizer(self) -> bool:
        """Each GPU keeps the optimizer states of its part only."""
        return self.strategy in SHARDS_OPTIMIZER

    @property
    def shards_gradients(self) -> bool:
        """Each GPU keeps the gradients of its part only."""
        return self.strategy in SHARDS_GRADIENTS

    @property
    def shards_weights(self) -> bool:
        """Each GPU keeps a part of the weights, and gathers the rest where a layer needs it."""
        return self.strategy in SHARDS_WEIGHTS


ONE_GPU = ParallelismSpec()


def usual_nodes(gpus: int) -> int:
    """The fewest machines of up to eight GPUs that have equally many of them."""
    return next(nodes for nodes in range(-(-gpus // GPUS_PER_NODE), gpus + 1) if gpus % nodes == 0)


def check_one_gpu(parallelism: ParallelismSpec, what: str) -> None:
    """Raise SpecError for what several GPUs would share, or the host's memory would hold: only formulas know of it."""
    if parallelism.strategy != "none":
        raise SpecError(f"{what} is of one GPU, without {parallelism.strategy}.", "Plan it by formula: peftbench plan.")
