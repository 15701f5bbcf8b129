"""One fine-tuning step: everything that decides its memory, apart from the model and the card."""

from __future__ import annotations

from dataclasses import dataclass

from peftbench.base.errors import SpecError
from peftbench.inputs.recipe.adapter import AdapterSpec
from peftbench.inputs.recipe.dtype import DType
from peftbench.inputs.recipe.parallelism import ONE_GPU, ParallelismSpec
from peftbench.inputs.recipe.quantization import QuantizationSpec

ATTENTIONS = ("sdpa", "flash_attention_2", "eager")
LOSSES = ("transformers", "transformers-4", "fused", "fused-5", "liger", "chunked")
FUSED_KERNELS = ("none", "norm-rope", "liger")
TRANSFORMERS = ("5", "4.48", "4.45", "4.39")
LOOPS = ("trainer", "plain")


@dataclass(frozen=True, kw_only=True)
class TrainingSpec:
    """A recipe. `adapter` and `quantization` are independent of each other; full fine-tuning has neither."""

    sequence_length: int = 2048
    """Tokens of every sequence, padding included."""
    padded: bool = False
    """The sequences of a batch differ in length, so attention gets a mask."""
    micro_batch_size: int = 1
    """per_device_train_batch_size."""
    gradient_accumulation_steps: int = 1
    gradient_checkpointing: bool = True
    """Recompute each decoder layer in the backward pass."""
    use_reentrant: bool = False
    """torch's older checkpointing, which holds the recomputed layer's output during its backward."""
    dtype: DType = DType.BFLOAT16
    """Of the base weights that are not quantized, and of the compute."""
    autocast: bool = True
    """Run the forward pass under torch.autocast, as TrainingArguments(bf16=True) does."""
    optimizer: str = "adamw_torch_fused"
    """A name of TrainingArguments.optim; the default is that of transformers 5."""
    attention: str = "sdpa"
    """attn_implementation."""
    loss: str = "transformers"
    """How the loss treats the logits: what transformers 5 or 4.46-4.49 does, a fused cross-entropy kernel in 4.4x or
    5, Liger's fused linear and cross-entropy, or chunks of tokens."""
    fused_kernels: str = "none"
    """Kernels that keep their inputs only: "norm-rope" (FOAK), or "liger", which has SwiGLU as well."""
    loop: str = "trainer"
    """`trainer` drops the model's outputs before backward; `plain` keeps them until the next step replaces them."""
    use_cache: bool = False
    """Keep keys and values of every layer in the outputs: config.use_cache left on."""
    zero_grad_keeps: bool = False
    """Gradients stay allocated between steps: zero_grad(set_to_none=False)."""
    transformers: str = "5"
    """The generation of transformers: older ones shift or keep other tensors, see estimate/forward/generations.py."""
    adapter: AdapterSpec | None = None
    quantization: QuantizationSpec | None = None
    parallelism: ParallelismSpec = ONE_GPU
    """micro_batch_size is of each GPU."""

    def __post_init__(self) -> None:
        for field in ("sequence_length", "micro_batch_size", "gradient_accumulation_steps"):
            if getattr(self, field) < 1:
                raise SpecError(f"{field} must be at least 1, not {getattr(self, field)}.")
        for field, known in (
            ("attention", ATTENTIONS), ("loss", LOSSES), ("loop", LOOPS), ("fused_kernels", FUSED_KERNELS),
            ("transformers", TRANSFORMERS),
        ):  # fmt: skip
            if getattr(self, field) not in known:
                raise SpecError(f"unknown {field} {getattr(self, field)!r}.", f"Choose one of {', '.join(known)}.")
        if self.quantization and not self.adapter:
            raise SpecError(
                "quantized weights cannot be trained: bitsandbytes has no gradient for them.",
                "Add an adapter (--method qlora), or drop the quantization.",
            )
        if self.parallelism.strategy == "tensor":
            raise SpecError("tensor parallelism is planned for inference only.", "Train with fsdp or zero3.")

    @property
    def tokens(self) -> int:
        """Tokens of one micro-batch."""
        return self.micro_batch_size * self.sequence_length

    @property
    def method(self) -> str:
        """The name people use: "full", "lora", "qlora", or the PEFT type, with "q" in front of a quantized base."""
        if self.adapter is None:
            return "full"
        return ("q" if self.quantization else "") + self.adapter.peft_type.replace("_", "-")

    @property
    def gradients_outlive_step(self) -> bool:
        """Whether gradients are alive during a forward pass: under accumulation, or when zero_grad keeps them."""
        return self.gradient_accumulation_steps > 1 or self.zero_grad_keeps
