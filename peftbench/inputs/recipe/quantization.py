"""How the frozen base weights are stored: a scheme's name and its options."""

from __future__ import annotations

from dataclasses import dataclass

from peftbench.base.errors import SpecError
from peftbench.base.visible import written
from peftbench.inputs.recipe.dtype import DType
from peftbench.inputs.recipe.option import check, option
from peftbench.inputs.schemes.scheme import QUANT_TYPES, Scheme, scheme_of


@dataclass(frozen=True, kw_only=True)
class QuantizationSpec:
    """A scheme of inputs/schemes/ with its options; those that it does not have change nothing."""

    quant_type: str = option(
        "nf4", "How the frozen weights are stored: by bitsandbytes, another library, or in the checkpoint.",
        choices=QUANT_TYPES, screen="{}", column=35,
    )  # fmt: skip
    blocksize: int | None = option(
        None, "Weights that share a constant: 32, 64, 128 …, or -1 for a checkpoint's whole rows.", kind=int,
        default_text="64 for bitsandbytes, 128 for a checkpoint", least=-1, screen="block {}",
        column=36,
    )  # fmt: skip
    bits: int | None = option(
        None, "Bits of a weight's code, where the scheme has a choice.", kind=int, default_text="the scheme's",
        least=1, most=8, screen="{} bit", column=104,
    )  # fmt: skip
    double_quant: bool = option(
        True, "Store the constants themselves in 8 bit: bnb_4bit_use_double_quant.", screen="no double quant",
        usual="double quant", column=37,
    )  # fmt: skip
    compute_dtype: DType = option(
        DType.BFLOAT16, "Dtype of the matrix products: bnb_4bit_compute_dtype.", screen="computes in {}", column=38
    )
    upcast_unquantized: bool = option(
        False, "What prepare_model_for_kbit_training does: norms, embeddings and head in float32.", screen="upcast",
        column=39,
    )  # fmt: skip
    upcast_norms: bool = option(False, "Norms alone in float32, as TRL leaves them.", screen="norms upcast", column=40)

    def __post_init__(self) -> None:
        check(self)
        scheme = self.scheme
        given = self.blocksize if scheme.blocksizes and self.blocksize is not None else scheme.blocksize
        object.__setattr__(self, "blocksize", given)
        if scheme.blocksizes and given not in scheme.blocksizes:
            sizes = ", ".join(map(str, scheme.blocksizes))
            raise SpecError(f"{scheme.library} refuses a block size of {written(given)}.", f"Choose one of {sizes}.")
        bits = self.bits if scheme.bits_choices and self.bits is not None else scheme.bits
        object.__setattr__(self, "bits", bits)
        if scheme.bits_choices and bits not in scheme.bits_choices:
            choices = ", ".join(map(str, scheme.bits_choices))
            raise SpecError(f"{scheme.library} has no codes of {written(bits)} bits.", f"Choose one of {choices}.")

    @property
    def scheme(self) -> Scheme:
        """What the libraries do with weights that are stored so."""
        return scheme_of(self.quant_type)

    @property
    def four_bit(self) -> bool:
        """Whether the weights are stored as 4-bit codes."""
        return self.scheme.bits == 4

    def code_bytes(self, numel: int) -> int:
        """Bytes of the codes of a matrix of so many weights."""
        if self.scheme.packed_bytes is not None:
            return self.scheme.packed_bytes(numel, self)
        assert self.bits is not None  # __post_init__ has set it
        return -(-numel * self.bits // 8)
