"""How the frozen base weights are stored: a scheme's name and its options."""

from __future__ import annotations

from dataclasses import dataclass

from peftbench.base.errors import SpecError
from peftbench.inputs.recipe.dtype import DType
from peftbench.inputs.schemes.scheme import Scheme, scheme_of


@dataclass(frozen=True, kw_only=True)
class QuantizationSpec:
    """A scheme of inputs/schemes/ with its options; those that it does not have change nothing."""

    quant_type: str = "nf4"
    blocksize: int | None = None
    """Weights that share a constant, by default as many as in the scheme's library; None in a scheme without blocks."""
    double_quant: bool = True
    """Store the absmax itself in 8 bit: bnb_4bit_use_double_quant."""
    compute_dtype: DType = DType.BFLOAT16
    upcast_unquantized: bool = False
    """Cast norms, embeddings and head to float32, as prepare_model_for_kbit_training does."""

    upcast_norms: bool = False
    """Cast the norms alone to float32: what TRL leaves after it has cast embeddings and head back to bfloat16."""

    def __post_init__(self) -> None:
        scheme = self.scheme
        given = self.blocksize if scheme.blocksizes and self.blocksize is not None else scheme.blocksize
        object.__setattr__(self, "blocksize", given)
        if scheme.blocksizes and given not in scheme.blocksizes:
            sizes = ", ".join(map(str, scheme.blocksizes))
            raise SpecError(f"{scheme.library} refuses a block size of {given}.", f"Choose one of {sizes}.")

    @property
    def scheme(self) -> Scheme:
        """What the libraries do with weights that are stored so."""
        return scheme_of(self.quant_type)

    @property
    def four_bit(self) -> bool:
        """Whether the weights are stored as 4-bit codes."""
        return self.scheme.bits == 4
