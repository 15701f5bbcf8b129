"""How bitsandbytes stores the frozen base weights."""

from __future__ import annotations

from dataclasses import dataclass

from peftbench.base.errors import SpecError
from peftbench.inputs.recipe.dtype import DType

QUANT_TYPES = ("nf4", "fp4", "int8", "gptq")
BLOCKSIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)


@dataclass(frozen=True, kw_only=True)
class QuantizationSpec:
    """A `BitsAndBytesConfig`: 4 bit (nf4, fp4) with block constants, or LLM.int8(); or a 4-bit GPTQ checkpoint."""

    quant_type: str = "nf4"
    blocksize: int = 64
    """Weights that share one absmax (4 bit only); group_size of a GPTQ checkpoint, usually 128."""
    double_quant: bool = True
    """Store the absmax itself in 8 bit: bnb_4bit_use_double_quant (nf4 and fp4 only)."""
    compute_dtype: DType = DType.BFLOAT16
    upcast_unquantized: bool = False
    """Cast norms, embeddings and head to float32, as prepare_model_for_kbit_training does."""

    upcast_norms: bool = False
    """Cast the norms alone to float32: what TRL leaves after it has cast embeddings and head back to bfloat16."""

    def __post_init__(self) -> None:
        if self.quant_type not in QUANT_TYPES:
            known = ", ".join(QUANT_TYPES)
            raise SpecError(f"unknown quantization type {self.quant_type!r}.", f"Choose one of {known}.")
        if self.blocksize not in BLOCKSIZES:
            raise SpecError(
                f"bitsandbytes refuses a block size of {self.blocksize}.",
                f"Choose one of {', '.join(map(str, BLOCKSIZES))}.",
            )

    @property
    def four_bit(self) -> bool:
        """Whether the weights are stored as 4-bit codes."""
        return self.quant_type != "int8"
