"""How many GPUs share one model, and what each of them keeps of it."""

from __future__ import annotations

from dataclasses import dataclass

from peftbench.base.errors import SpecError
from peftbench.inputs.recipe.option import check, option

STRATEGIES = ("none", "ddp", "zero1", "zero2", "zero3", "fsdp", "fsdp-grad-op", "tensor")
"""One GPU; data parallel; DeepSpeed's three stages; FSDP2 with FULL_SHARD or SHARD_GRAD_OP; tensor parallel."""
SHARDS_OPTIMIZER = ("zero1", "zero2", "zero3", "fsdp", "fsdp-grad-op")
SHARDS_GRADIENTS = ("zero2", "zero3", "fsdp", "fsdp-grad-op")
SHARDS_WEIGHTS = ("zero3", "fsdp", "fsdp-grad-op")
LOADING = ("sharded", "whole")
"""Each GPU is sent its part, a layer at a time; or it holds the whole model first, and then cuts it."""
LINKED = tuple(each for each in STRATEGIES if each not in ("none", "tensor"))
"""Training on several GPUs, or with the host's memory: its time depends on the links."""
LINKS = (
    "nvlink", "pcie", "pcie3-x4", "pcie3-x8", "pcie3-x16", "pcie3-x16-p2p", "pcie4-x4", "pcie4-x8", "pcie4-x16",
    "pcie4-x16-p2p", "pcie5-x4", "pcie5-x8", "pcie5-x16", "pcie5-x16-p2p",
)  # fmt: skip
"""NVLink or its like; the slot that the card is made for; slots of PCIe by generation and lanes, through the host's
memory or, with "-p2p", from card to card."""
STAGE_3_NUMEL = 1_000_000_000
"""DeepSpeed's own stage3_max_live_parameters and sub_group_size."""
MOST_NUMEL = 10**16
"""Elements; files have 1e14 for "all of them"."""
MAX_GPUS = 4096
GPUS_PER_NODE = 8
"""As most machines have them."""


def _counted(parallelism: ParallelismSpec) -> str:
    """Nothing for one GPU by itself; the memory shown is that of one of them."""
    if parallelism.gpus > 1:
        return f"each of {parallelism.counted}"
    return "" if parallelism.strategy == "none" else parallelism.counted


def _bucketed(parallelism: ParallelismSpec) -> str:
    return f" bucket {parallelism.reduce_bucket_size:,}" if parallelism.reduce_bucket_size else ""


def _live(parallelism: ParallelismSpec) -> str:
    most = parallelism.max_live_parameters
    return "" if most == STAGE_3_NUMEL else f" {most:,} elements gathered"


def _grouped(parallelism: ParallelismSpec) -> str:
    size = parallelism.sub_group_size
    return "" if size == STAGE_3_NUMEL else f" sub-groups of {size:,}"


def _offloaded(parallelism: ParallelismSpec) -> str:
    if not parallelism.cpu_offload:
        return ""
    alone = parallelism.strategy == "zero3" and not parallelism.offload_params
    return " with CPU offload of the optimizer" if alone else " with CPU offload"


def _linked(parallelism: ParallelismSpec) -> str:
    """Nothing where no GPU talks to another."""
    return f" over {parallelism.link}" if parallelism.link and parallelism.strategy != "none" else ""


@dataclass(frozen=True, kw_only=True)
class ParallelismSpec:
    """`gpus` counts all GPUs of all nodes; each runs a micro-batch of its own, unless the strategy is "tensor"."""

    gpus: int = option(
        1, "GPUs over all nodes; auto: as few as fit.", least=1, most=MAX_GPUS, screen=_counted, column=77
    )
    nodes: int = option(
        1, "Machines that hold the GPUs.", least=1, most=MAX_GPUS, default_text=f"one for each {GPUS_PER_NODE}",
        screen=" in {} nodes", usual="", column=78,
    )  # fmt: skip
    strategy: str = option(
        "none", "How the GPUs share the model.", name="parallel", choices=STRATEGIES, unset="none",
        default_text="fsdp; tensor for inference", screen="{}", column=79,
    )  # fmt: skip
    cpu_offload: bool = option(
        False, "Keep what is sharded in the host's memory while no GPU needs it.", alone=True,
        screen=_offloaded, column=80,
    )  # fmt: skip
    offload_params: bool = option(
        True, "With --cpu-offload under ZeRO-3: the weights too, not the optimizer alone; DeepSpeed's offload_param.",
        screen="", usual="", column=96,
    )  # fmt: skip
    reduce_bucket_size: int | None = option(
        None, "Elements that DeepSpeed reduces at a time.", kind=int, least=1, most=MOST_NUMEL,
        default_text='hidden size squared, its "auto"', screen=_bucketed, column=97,
    )  # fmt: skip
    overlap_comm: bool = option(
        False, "Reduce while the backward pass goes on: ZeRO-1 and 2 fill a second bucket meanwhile.",
        screen=" overlapped", column=98,
    )  # fmt: skip
    max_live_parameters: int = option(
        STAGE_3_NUMEL, "Elements that ZeRO-3 keeps gathered: stage3_max_live_parameters.", least=1, most=MOST_NUMEL,
        screen=_live, column=100,
    )  # fmt: skip
    sub_group_size: int = option(
        STAGE_3_NUMEL, "Elements that ZeRO-3 updates at a time.", least=1, most=MOST_NUMEL, screen=_grouped, column=101,
    )  # fmt: skip
    loading: str | None = option(
        None, "What a GPU holds while sharded weights are loaded: its part, layer by layer (zero.Init, "
        "fsdp_cpu_ram_efficient_loading), or the whole model first.",
        kind=str, choices=LOADING, default_text="as the libraries do", screen=" loaded {}", column=95,
    )  # fmt: skip
    link: str | None = option(
        None, "What the GPUs of a machine talk over: nvlink, pcie, or a slot by generation and lanes, pcie3-x4 to "
        "pcie5-x16; with -p2p where `nvidia-smi topo -p2p r` shows OK.",
        kind=str, choices=LINKS, default_text="NVLink where the card has it, else its slot", screen=_linked, column=99,
    )  # fmt: skip

    def __post_init__(self) -> None:
        check(self)
        self._check_counts()
        if self.cpu_offload and self.strategy == "tensor":
            raise SpecError("tensor parallelism keeps every part on its GPU.", "Leave out --cpu-offload, or add GPUs.")
        if self.cpu_offload and not self.shards_optimizer:
            raise SpecError(
                f"{self.strategy!r} cannot offload to the CPU: it shards nothing.",
                f"Choose one of {', '.join(SHARDS_OPTIMIZER)}.",
            )

    def _check_counts(self) -> None:
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
    def offloads_weights(self) -> bool:
        """Each GPU's part of the weights waits in the host's memory."""
        return self.cpu_offload and self.shards_weights and (self.strategy != "zero3" or self.offload_params)

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
