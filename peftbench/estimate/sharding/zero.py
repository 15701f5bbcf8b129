"""DeepSpeed's buffers, and what its optimizer step takes beside gradients and states.

Source: deepspeed/runtime of 0.19.8, whose files are named below.
"""

from __future__ import annotations

from peftbench.estimate.parts.tensors import TensorGroup, total_numel
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe import ParallelismSpec, TrainingSpec
from peftbench.memory import ALWAYS, Component, Part, Phase, exact

_DOUBLE = 8
"""Bytes of float64, in which the norm of each gradient is taken: get_norm_dtype in zero/utils.py."""
_BACKWARD = frozenset({Phase.BACKWARD})


def bucket_numel(model: ModelSpec, parallelism: ParallelismSpec) -> int:
    """reduce_bucket_size. "auto" is the hidden size squared: trainer_config_finalize in transformers/integrations."""
    return parallelism.reduce_bucket_size or model.hidden_size**2


def buckets(model: ModelSpec, tensors: tuple[TensorGroup, ...], training: TrainingSpec) -> list[Component]:
    """The buffers that gradients are gathered in to be reduced, whole however few parameters are trained.

    Stages 1 and 2 make one in each backward pass, or two with overlap_comm (setup_buckets in stage_1_and_2.py); stage 3
    has one from the beginning (_setup_for_real_optimizer in stage3.py). What is in it is flattened once more to be
    sent: allreduce_bucket, and reduce_scatter_coalesced in comm/coalesced_collectives.py, which needs no copy of a
    parameter that is larger than the bucket and can be cut evenly.
    """
    parallelism, itemsize, numel = training.parallelism, training.dtype.bytes, bucket_numel(model, training.parallelism)
    because, copied = f"reduce_bucket_size, {numel:,} elements", min(numel, total_numel(tensors))
    copy = "what is in the bucket, flattened to be sent"
    if parallelism.strategy == "zero3":
        largest = max(tensor.tensor_numel for tensor in tensors)
        copied = max(copied, largest if largest > numel and largest % parallelism.gpus else 0)
        return [
            exact(Part.BUCKETS, numel * itemsize, ALWAYS, because),
            exact(Part.BUCKETS, copied * itemsize, _BACKWARD, copy),
        ]
    both = ", and as many that are on their way: overlap_comm" if parallelism.overlap_comm else ""
    size = numel * itemsize * (2 if parallelism.overlap_comm else 1)
    return [
        exact(Part.BUCKETS, size, _BACKWARD, because + both),
        exact(Part.BUCKETS, copied * itemsize, _BACKWARD, copy),
        *_offload_buffers(tensors, training),
    ]


def _offload_buffers(tensors: tuple[TensorGroup, ...], training: TrainingSpec) -> list[Component]:
    """What offload of stages 1 and 2 has on the GPU: temp_grad_buffer_for_gpu_offload, and this part's in float64.

    The latter is in set_norm_for_param_grad_in_gpu.
    """
    if not training.parallelism.cpu_offload:
        return []
    largest = max(tensor.tensor_numel for tensor in tensors)
    own = min(largest, -(-total_numel(tensors) // training.parallelism.gpus))
    because, norm = "the largest gradient on its way to the host", "its norm, in float64"
    return [
        exact(Part.BUCKETS, largest * training.dtype.bytes, ALWAYS, because),
        exact(Part.BUCKETS, own * _DOUBLE, _BACKWARD, norm),
    ]


def has_master(training: TrainingSpec) -> bool:
    """Whether there is a float32 copy beside the weights; stage 3 updates float32 weights themselves."""
    return training.parallelism.strategy != "zero3" or training.dtype.bytes != 4


def step_temporaries_bytes(
    tensors: tuple[TensorGroup, ...], own_numel: int, gradient_bytes: int, optimizer_bytes: int, training: TrainingSpec
) -> int:
    """The most that `step` takes beside `gradient_bytes` of gradients, for this GPU's `own_numel` elements.

    First the norm, gradient by gradient. Then gradients are flattened and cast to float32; only then are the others let
    go of. The optimizer's own `optimizer_bytes` come beside the float32 ones. Stage 3 goes by sub-groups.
    """
    itemsize, gpus = training.dtype.bytes, training.parallelism.gpus
    largest = max(tensor.tensor_numel for tensor in tensors)
    if training.parallelism.strategy == "zero3":
        numel = min(own_numel, training.parallelism.sub_group_size)
        states = optimizer_bytes * numel // max(own_numel, 1)
        return max(_DOUBLE * -(-largest // gpus), numel * _cast_bytes(itemsize), numel * 4 + states)
    own = itemsize * own_numel
    peak = max(
        gradient_bytes + _DOUBLE * min(largest, own_numel), own + own_numel * _cast_bytes(itemsize),
        own_numel * 4 + optimizer_bytes,
    )  # fmt: skip
    return max(0, peak - gradient_bytes)


def _cast_bytes(itemsize: int) -> int:
    """Bytes for each element of the flattened gradient, and of its float32 copy where it is none yet."""
    return itemsize + (4 if itemsize != 4 else 0)
