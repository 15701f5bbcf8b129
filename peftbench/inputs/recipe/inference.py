"""One generation request: everything that decides its memory, apart from the model and the card."""

from __future__ import annotations

from dataclasses import dataclass

from peftbench.base.errors import SpecError
from peftbench.inputs.recipe.adapter import AdapterSpec
from peftbench.inputs.recipe.dtype import DType
from peftbench.inputs.recipe.parallelism import ONE_GPU, ParallelismSpec
from peftbench.inputs.recipe.quantization import QuantizationSpec


@dataclass(frozen=True, kw_only=True)
class InferenceSpec:
    """A batch of prompts of equal length and the tokens generated after them."""

    prompt_tokens: int = 2048
    new_tokens: int = 256
    batch_size: int = 1
    dtype: DType = DType.BFLOAT16
    attention: str = "sdpa"
    adapter: AdapterSpec | None = None
    """A dynamic adapter; a merged one adds nothing and is written as None."""
    quantization: QuantizationSpec | None = None
    parallelism: ParallelismSpec = ONE_GPU
    """Only "tensor" splits a request over GPUs."""

    def __post_init__(self) -> None:
        for field in ("prompt_tokens", "batch_size"):
            if getattr(self, field) < 1:
                raise SpecError(f"{field} must be at least 1, not {getattr(self, field)}.")
        if self.new_tokens < 0:
            raise SpecError(f"new_tokens cannot be negative, not {self.new_tokens}.")
        if self.parallelism.strategy not in ("none", "tensor"):
            raise SpecError(f"a request is not generated with {self.parallelism.strategy!r}.", "Choose tensor.")

    @property
    def method(self) -> str:
        """As TrainingSpec.method; a quantized base without adapter goes by its quantization: "nf4"."""
        if self.adapter is None:
            return self.quantization.quant_type if self.quantization else "full"
        return ("q" if self.quantization else "") + self.adapter.peft_type.replace("_", "-")
