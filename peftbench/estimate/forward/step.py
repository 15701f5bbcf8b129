"""A training step as the tape runs it: the model, the recipe as far as it matters, and the card's kernels."""

from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from peftbench.estimate.forward.generations import SHIFTS, loss_variant
from peftbench.estimate.forward.kernels import Kernels, masks_sliding_layers, smallest_window
from peftbench.estimate.parts.base_weights import quantized_weights
from peftbench.estimate.parts.tensors import total_bytes
from peftbench.estimate.peft_forward.lora import trains_tokens
from peftbench.estimate.peft_forward.virtual_tokens import is_prefix, is_prompt
from peftbench.estimate.peft_types.tensors import adapted_weights, adapter_tensors
from peftbench.estimate.tape.autograd import FLOAT32
from peftbench.inputs.model.parts import DeltaNet
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.model.weight import Role
from peftbench.inputs.recipe import AdapterSpec, ParallelismSpec, QuantizationSpec, TrainingSpec


class Step(NamedTuple):
    """A step to run on the tape: what decides its moments, apart from the number of tokens."""

    model: ModelSpec
    training: TrainingSpec
    """With what does not matter at its default: see step_of."""
    kernels: Kernels

    @property
    def full(self) -> bool:
        """The base weights are trained."""
        return self.training.adapter is None

    @property
    def keeps_outputs(self) -> bool:
        """The loop holds the outputs in backward; a plain one until the next step."""
        return self.training.loop != "trainer"

    @property
    def quantization(self) -> QuantizationSpec | None:
        """None where there is nothing to quantize."""
        return self.training.quantization if quantized_weights(self.model, self.training.quantization) else None

    @property
    def autocast_itemsize(self) -> int | None:
        """Bytes an element of the types that autocast computes in."""
        return 2 if self.training.autocast else None

    @property
    def embedding_itemsize(self) -> int:
        """The stream between layers starts as the embedding and has its type."""
        quantization = self.quantization
        return FLOAT32 if quantization and quantization.upcast_unquantized else self.training.dtype.bytes

    @property
    def embeddings_need_grad(self) -> bool:
        """The first layer's input has a gradient: something before it is trained, or checkpoints ask for it."""
        adapter = self.training.adapter
        if adapter is None or self.training.gradient_checkpointing or is_prompt(adapter) or trains_tokens(adapter):
            return True
        return any(weight.role is Role.EMBEDDING for weight in adapted_weights(self.model, adapter))

    @property
    def early_gradients(self) -> int:
        """Bytes of gradients that exist before the head's backward: AdaLoRA's penalty is added to the loss last."""
        adapter = self.training.adapter
        if adapter is None or adapter.peft_type != "adalora" or self.training.gradients_outlive_step:
            return 0
        return total_bytes(adapter_tensors(self.model, adapter, self.training.dtype))


def _of_each_sequence(adapter: AdapterSpec | None) -> bool:
    """Whether the adapter has matrices for each sequence, which do not grow with its tokens."""
    return is_prefix(adapter) or (adapter is not None and adapter.peft_type == "poly")


def _chunked(model: ModelSpec) -> bool:
    """Whether a sequence is cut into chunks, of which it may have any number."""
    return any(layer.state_space or isinstance(layer.mixer, DeltaNet) for layer in model.layers)


DDP = ParallelismSpec(gpus=2, strategy="ddp")
"""Stands for any number of GPUs."""


@lru_cache(maxsize=8192)
def step_of(model: ModelSpec, training: TrainingSpec, kernels: Kernels) -> Step:
    """The step with everything that its moments do not depend on at one value, so that one run serves many recipes.

    A field that is not named here costs another run, never a wrong answer. Liger's loss is not linear in tokens, nor
    are states that are kept of each chunk of a sequence.
    """
    liger, adapter = training.loss == "liger", training.adapter
    shifts = loss_variant(model.family, training) in SHIFTS or (adapter is not None and adapter.peft_type == "cpt")
    exact = liger or shifts or _of_each_sequence(adapter)
    several = kernels.attention == "eager" and training.micro_batch_size > 1
    window = smallest_window(model) if masks_sliding_layers(model, training) else None
    alike = replace(
        training,
        sequence_length=training.sequence_length if liger or _chunked(model) else window or 1,
        micro_batch_size=training.micro_batch_size if exact else 1 + several,
        gradient_accumulation_steps=1 + training.gradients_outlive_step,
        zero_grad_keeps=False,
        device_map=TrainingSpec.device_map,
        optimizer=TrainingSpec.optimizer,
        parallelism=DDP if training.looks_for_unused else TrainingSpec.parallelism,
    )
    return Step(model, alike, kernels)
