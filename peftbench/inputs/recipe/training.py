"""One fine-tuning step: everything that decides its memory, apart from the model and the card."""

from __future__ import annotations

from dataclasses import dataclass

from peftbench.base.errors import SpecError
from peftbench.inputs.recipe.adapter import AdapterSpec
from peftbench.inputs.recipe.dtype import DType
from peftbench.inputs.recipe.option import check, option
from peftbench.inputs.recipe.parallelism import ONE_GPU, ParallelismSpec
from peftbench.inputs.recipe.quantization import QuantizationSpec

ATTENTIONS = ("sdpa", "flash_attention_2", "eager")
LOSSES = ("transformers", "transformers-4", "fused", "fused-5", "liger", "chunked")
FUSED_KERNELS = ("none", "norm-rope", "liger")
TRANSFORMERS = ("5", "4.48", "4.45", "4.39")
LOOPS = ("trainer", "plain", "function")
DEVICE_MAPS = ("auto", "none")
TASK_TYPES = (
    "causal-lm", "seq-2-seq-lm", "seq-cls", "token-cls", "question-ans", "feature-extraction", "masked-lm",
)  # fmt: skip
"""PEFT's TaskType in lower case, and masked language modelling, for which it has none."""
ZERO_GRADS = ("set-to-none", "keep")
"""zero_grad(set_to_none=True) and (set_to_none=False)."""


def _checkpointing(recipe: TrainingSpec) -> str:
    if not recipe.gradient_checkpointing:
        return "no checkpointing"
    return "reentrant checkpointing" if recipe.use_reentrant else "checkpointing"


def _loading(recipe: TrainingSpec) -> str:
    """Quantized weights are sent to the card by either; so is nothing on several GPUs."""
    asked = recipe.device_map == "none" and recipe.quantization is None and recipe.parallelism.gpus == 1
    return "loaded on the CPU" if asked else ""


@dataclass(frozen=True, kw_only=True)
class TrainingSpec:
    """A recipe. `adapter` and `quantization` are independent of each other; full fine-tuning has neither."""

    sequence_length: int = option(
        2048, "Tokens of each sequence, padding included.", least=1, screen="sequence {}", column=8
    )
    padded: bool = option(False, "Sequences differ in length, so attention gets a mask.", screen=" padded", column=71)
    micro_batch_size: int = option(
        1, "Sequences in a pass on each GPU: per_device_train_batch_size.", least=1, screen="micro-batch {}", column=9
    )
    gradient_accumulation_steps: int = option(
        1, "Micro-batches per optimizer step.", least=1, screen="accumulation {}", usual="", column=10
    )
    sync_each_batch: bool = option(
        False, "Reduce gradients in every micro-batch, so that FSDP keeps no whole ones: accelerate's sync_each_batch.",
        screen=" synced each time", column=94,
    )  # fmt: skip
    gradient_checkpointing: bool = option(
        True, "Recompute each layer in the backward pass.", screen=_checkpointing, column=11
    )
    use_reentrant: bool = option(
        False, "torch's older checkpointing, which holds a layer's output during its backward.", screen="", column=12
    )
    dtype: DType = option(
        DType.BFLOAT16, "Dtype of the non-quantized weights and of the compute.", screen="{}", column=13
    )
    autocast: bool = option(
        True, "Run the forward pass under torch.autocast, as the Trainer's bf16 and fp16 do.",
        screen=" without autocast", usual=" autocast", column=14,
    )  # fmt: skip
    optimizer: str = option(
        "adamw_torch_fused", "Optimizer, by its name in TrainingArguments.optim.", screen="{}", column=15
    )
    attention: str = option(
        "sdpa", "Attention kernel: attn_implementation.", choices=ATTENTIONS, screen="{}", column=16
    )
    loss: str = option(
        "transformers",
        "How the loss treats the logits: as transformers 5 or 4.46-4.49 does, with a fused cross-entropy kernel in "
        "4.4x or 5, with Liger's fused linear layer and cross-entropy, or in chunks of tokens.",
        choices=LOSSES, screen="{} loss", column=17,
    )  # fmt: skip
    fused_kernels: str = option(
        "none", "Kernels in the layers that keep their inputs only: norm-rope (FOAK), or liger, which has SwiGLU too.",
        choices=FUSED_KERNELS, screen="{} kernels", usual="", column=18,
    )  # fmt: skip
    loop: str = option(
        "trainer", "The Trainer drops the outputs before backward, a plain loop keeps them until the next step, a step "
        "that is a function until backward is over.",
        choices=LOOPS, screen="{} loop", usual="Trainer", column=19,
    )  # fmt: skip
    device_map: str = option(
        "auto", "How weights that are not quantized come to one GPU: by from_pretrained, as in TRL, which first asks "
        "for one block as large as the model; or none, loaded on the CPU and moved.",
        choices=DEVICE_MAPS, screen=_loading, column=105,
    )  # fmt: skip
    use_cache: bool = option(
        False, "Keep the keys and values in training: config.use_cache.", after="zero_grad", screen="use_cache",
        column=20,
    )  # fmt: skip
    zero_grad_keeps: bool = option(
        False, "Whether gradients are freed between steps or stay allocated.", name="zero_grad", choices=ZERO_GRADS,
        screen="gradients kept", column=21,
    )  # fmt: skip
    transformers: str = option(
        "5", "The generation of transformers: older ones shift or keep other tensors.", choices=TRANSFORMERS,
        after="fused_kernels", screen="transformers {}", usual="", column=22,
    )  # fmt: skip
    adapter: AdapterSpec | None = None
    quantization: QuantizationSpec | None = None
    parallelism: ParallelismSpec = ONE_GPU

    def __post_init__(self) -> None:
        check(self, adapter=AdapterSpec, quantization=QuantizationSpec, parallelism=ParallelismSpec)
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

    def computes_in(self, has_bfloat16: bool) -> DType:
        """The type of the weights, or the 16-bit one that autocast takes beside float32 weights on this device."""
        if self.dtype is not DType.FLOAT32 or not self.autocast:
            return self.dtype
        return DType.BFLOAT16 if has_bfloat16 else DType.FLOAT16

    @property
    def loads_on_card(self) -> bool:
        """Whether from_pretrained itself sends the weights to the card, and asks for all of their memory first.

        Quantized ones always; others on one GPU, for no process of several is given device_map. Sources:
        create_model_from_path and SFTTrainer of trl 1.16, validate_environment of transformers' Bnb4BitHfQuantizer.
        """
        return self.quantization is not None or (self.device_map == "auto" and self.parallelism.gpus == 1)

    @property
    def moves_model(self) -> bool:
        """Whether the model is moved to the card as a whole: the Trainer does, unless it is quantized."""
        return self.loop == "trainer" and self.quantization is None

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

    @property
    def looks_for_unused(self) -> bool:
        """Whether the Trainer has DDP look for parameters without a gradient: under PEFT, and without checkpointing.

        Source: _build_accelerator_args in transformers/trainer.py.
        """
        looks = self.adapter is not None or not self.gradient_checkpointing
        return looks and self.loop == "trainer" and self.parallelism.strategy == "ddp"

    @property
    def defers_reduction(self) -> bool:
        """Whether FSDP keeps whole gradients until the last micro-batch, and reduces them then.

        The Trainer runs all but the last under Accelerate's no_sync, unless sync_each_batch says otherwise. DeepSpeed
        reduces in every micro-batch. Sources: _run_epoch in transformers/trainer.py, no_sync of Accelerator.
        """
        several = self.gradient_accumulation_steps > 1 and not self.sync_each_batch
        return several and self.parallelism.strategy.startswith("fsdp")
