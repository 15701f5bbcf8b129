"""One generation request: everything that decides its memory, apart from the model and the card."""

from __future__ import annotations

from dataclasses import dataclass

from peftbench.base.errors import SpecError
from peftbench.inputs.recipe.adapter import AdapterSpec
from peftbench.inputs.recipe.dtype import DType
from peftbench.inputs.recipe.option import again, check, declared, option
from peftbench.inputs.recipe.parallelism import ONE_GPU, ParallelismSpec
from peftbench.inputs.recipe.quantization import QuantizationSpec
from peftbench.inputs.recipe.training import TrainingSpec

ADAPTER_KIND = declared(
    "dynamic", "Whether the adapter is merged into the weights.", name="adapter",
    choices=("merged", "dynamic", "none"),
)  # fmt: skip
"""What --adapter takes; a merged one leaves nothing in the spec."""


@dataclass(frozen=True, kw_only=True)
class InferenceSpec:
    """A batch of prompts of equal length and the tokens generated after them."""

    prompt_tokens: int = option(2048, "Length of each prompt.", least=1, screen="inference of {}", column=23)
    new_tokens: int = option(256, "Tokens generated after it.", least=0, screen=" + {} tokens", column=24)
    batch_size: int = option(1, "Prompts at a time.", least=1, screen="batch {}", column=25)
    dtype: DType = again(TrainingSpec, "dtype")
    attention: str = again(TrainingSpec, "attention")
    adapter: AdapterSpec | None = None
    """A dynamic adapter; a merged one adds nothing and is written as None."""
    quantization: QuantizationSpec | None = None
    parallelism: ParallelismSpec = ONE_GPU
    """Only "tensor" splits a request over GPUs."""

    def __post_init__(self) -> None:
        check(self, adapter=AdapterSpec, quantization=QuantizationSpec, parallelism=ParallelismSpec)
        if self.parallelism.strategy not in ("none", "tensor"):
            raise SpecError(f"a request is not generated with {self.parallelism.strategy!r}.", "Choose tensor.")

    @property
    def method(self) -> str:
        """As TrainingSpec.method; a quantized base without adapter goes by its quantization: "nf4"."""
        if self.adapter is None:
            return self.quantization.quant_type if self.quantization else "full"
        return ("q" if self.quantization else "") + self.adapter.peft_type.replace("_", "-")
