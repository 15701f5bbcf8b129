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

FILES = {
    "nf4": "bitsandbytes", "fp4": "bitsandbytes", "int8": "bitsandbytes", "gptq": "gptq", "awq": "awq", "hqq": "hqq",
    "eetq": "eetq", "aqlm-1x16": "codebooks", "aqlm-2x8": "codebooks", "vptq": "codebooks", "fp8": "fp8",
    "fbgemm-fp8": "fp8", "torchao-int8": "torchao", "torchao-float8": "torchao", "torchao-int4": "torchao",
    "quanto-int8": "quanto", "quanto-float8": "quanto", "quanto-int4": "quanto", "quanto-int2": "quanto",
    "mxfp4": "mxfp4", "compressed-tensors": "packed", "gguf": "packed", "higgs": "generation", "bitnet": "generation",
}  # fmt: skip
"""Every scheme by its --quant-type, and the file of this folder that has its row in SCHEMES: loaded when asked for."""
QUANT_TYPES = tuple(FILES)
OPTIONS = ("blocksize", "bits", "double_quant", "compute_dtype")
"""Fields of QuantizationSpec that only some schemes have."""


class Scheme(NamedTuple):
    """One scheme. Sizes are in bytes; functions get the recipe's QuantizationSpec, which has the scheme's options."""

    library: str
    """Who stores weights so, in messages: "bitsandbytes"."""
    bits: int
    """Bits of a weight's code, where the recipe does not choose them: 4 (two in a byte), 8 …"""
    constants_bytes: Callable[[int, int, QuantizationSpec], int]
    """What dequantizing one matrix of (out_features, in_features) needs beside its codes."""
    constants: Callable[[QuantizationSpec], str]
    """The same in words."""
    forward: Callable[[Context, Tensor, int], Tensor]
    """A linear layer on the tape: of its input, and the width of its output."""
    written_itemsize: Callable[[QuantizationSpec], int]
    """Bytes of an element of a matrix that is dequantized as a whole; 0 where codes are multiplied."""

    bits_choices: tuple[int, ...] = ()
    """Bits that a code can have; empty where there is no choice."""
    packed_bytes: Callable[[int, QuantizationSpec], int] | None = None
    """Codes of so many weights, where they do not lie beside one another without a gap."""
    options: tuple[str, ...] = ()
    """Those of OPTIONS that it has."""
    blocksizes: tuple[int, ...] = ()
    """Numbers of weights that can share a constant."""
    blocksize: int | None = None
    """The library's default; None without blocks."""
    checkpoint: bool = False
    """Weights come quantized, and are never on the card in 16 bit."""
    built: bool = False
    """A dry run, a measured run and another tool's file can make such weights."""
    untrainable: str = ""
    """Why no adapter can be trained on it, as a sentence; empty where one can."""
    dequantizes: bool = False
    """transformers can write the weights out in 16 bit as it loads them."""
    capability: tuple[int, int] = (0, 0)
    """Compute capability below which there are no kernels for the codes."""
    reaches_subclasses: bool = False
    """Linear layers of a class of their own too (Falcon's); bitsandbytes takes exactly nn.Linear and Conv1D."""
    reaches_experts: bool = False
    """The matrices of experts too, which are linear layers of their own in the checkpoint."""
    experts_only: bool = False
    """Nothing but the matrices of experts."""
    conv1d: bool = False
    """transformers' Conv1D too (GPT-2)."""
    blocks_only: bool = False
    """Nothing outside of the decoder layers (OPT-350m's projections)."""

    adapters: tuple[str, ...] = ()
    """PEFT types that are priced on it; empty: all that PEFT puts on bitsandbytes."""
    dora: bool = False
    """DoRA too."""
    plain_layers: bool = False
    """PEFT has no layer of its own for it, and puts there what it puts on nn.Linear."""
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
