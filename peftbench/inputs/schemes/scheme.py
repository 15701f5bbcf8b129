"""What a way of storing frozen weights in few bits does: one row a scheme, each in the file that FILES names."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from peftbench.base.errors import SpecError, did_you_mean

if TYPE_CHECKING:
    from peftbench.estimate.tape.autograd import Tensor
    from peftbench.estimate.tape.modules import Context
    from peftbench.inputs.recipe import QuantizationSpec

FILES = {"nf4": "bitsandbytes", "fp4": "bitsandbytes", "int8": "bitsandbytes", "gptq": "gptq", "awq": "awq"}
"""Every scheme by its --quant-type, and the file of this folder that has its row in SCHEMES: loaded when asked for."""
QUANT_TYPES = tuple(FILES)
OPTIONS = ("blocksize", "double_quant", "compute_dtype")
"""Fields of QuantizationSpec that only some schemes have."""


class Scheme(NamedTuple):
    """One scheme. Sizes are in bytes; functions get the recipe's QuantizationSpec, which has the scheme's options."""

    library: str
    """Who stores weights so, in messages: "bitsandbytes"."""
    bits: int
    """Bits of a weight's code: 4 (two in a byte) or 8."""
    constants_bytes: Callable[[int, int, QuantizationSpec], int]
    """What dequantizing one matrix of (out_features, in_features) needs beside its codes."""
    constants: Callable[[QuantizationSpec], str]
    """The same in words."""
    forward: Callable[[Context, Tensor, int], Tensor]
    """A linear layer on the tape: of its input, and the width of its output."""
    written_itemsize: Callable[[QuantizationSpec], int]
    """Bytes of an element of a matrix that is dequantized as a whole; 0 where codes are multiplied."""

    options: tuple[str, ...] = ()
    """Those of OPTIONS that it has."""
    blocksizes: tuple[int, ...] = ()
    """Numbers of weights that can share a constant."""
    blocksize: int | None = None
    """The library's default; None without blocks."""
    checkpoint: bool = False
    """Weights come quantized: neither a dry run nor a measured run nor another tool's file can make them."""
    reaches_subclasses: bool = False
    """Linear layers of a class of their own too (Falcon's); bitsandbytes takes exactly nn.Linear and Conv1D."""
    reaches_experts: bool = False
    """The matrices of experts too, which are linear layers of their own in the checkpoint."""
    blocks_only: bool = False
    """Nothing outside of the decoder layers (OPT-350m's projections)."""

    adapters: tuple[str, ...] = ()
    """PEFT types that have a layer for it, none of them with DoRA; empty: all that PEFT puts on bitsandbytes."""
    lora_copies: bool = False
    """PEFT's LoRA on such a layer clones its result before adding to it."""
    others_copy: bool = False
    """The same of other PEFT types."""
    lora_leaves_input: bool = False
    """Under autocast PEFT's LoRA hands the layer's input on as it is, and casts its own result otherwise.

    Where it does not, LoRA runs as on a plain layer.
    """

    moved_bytes: float | None = None
    """Moved for each weight that is dequantized in a step; None: what was fitted to bitsandbytes."""
    launches: bool = True
    """The host launches as many kernels for a layer as for bitsandbytes' 4-bit one."""
    published: bool = False
    """Published latencies and losses of quality tell what to expect."""
    step_doubt: str = ""
    """Why a step's time is uncertain; empty where steps are published."""
    unshardable: str = ""
    """Why FSDP and ZeRO-3 cannot cut the codes; empty where they can."""
    storage_option: str = ""
    """What stores codes in a floating dtype, as sharding wants them."""
    keeps_inputs: str = ""
    """What non-reentrant checkpointing does not drop, in words."""

    def code_bytes(self, numel: int) -> int:
        """Bytes of a matrix' codes."""
        return -(-numel * self.bits // 8)


@lru_cache(maxsize=64)
def scheme_of(name: str) -> Scheme:
    """The scheme of a --quant-type; raises SpecError where there is none of this name."""
    if name not in FILES:
        what = f"unknown quantization type {name!r}. {did_you_mean(name, FILES)}".rstrip()
        raise SpecError(what, f"Choose one of {', '.join(FILES)}.")
    schemes: dict[str, Scheme] = import_module(f"peftbench.inputs.schemes.{FILES[name]}").SCHEMES
    return schemes[name]


def schemes_with(option: str) -> tuple[str, ...]:
    """The names of the schemes that have one of OPTIONS."""
    return tuple(name for name in FILES if option in scheme_of(name).options)
