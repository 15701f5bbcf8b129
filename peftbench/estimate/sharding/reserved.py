"""What several GPUs take beyond tensors: pools of streams in torch's allocator, and the connections of NCCL."""

from __future__ import annotations

from collections.abc import Sequence

from peftbench.base.units import MIB
from peftbench.estimate.parts.card import CardTraits
from peftbench.estimate.parts.tensors import TensorGroup
from peftbench.estimate.replay.reserved import beyond_tensors
from peftbench.estimate.replay.step import Batches
from peftbench.estimate.sharding.blocks import sharding_of
from peftbench.estimate.sharding.links import over_nvlink
from peftbench.estimate.sharding.loading import loaded_slack, loading
from peftbench.estimate.sharding.split import (
    flat_parameters,
    is_fsdp2,
    is_zero,
    trained_parts,
)
from peftbench.estimate.sharding.units import units_of
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe import ParallelismSpec, TrainingSpec
from peftbench.memory import TRAINING, Basis, Component, Part, Phase

_OWN_STREAMS = (Part.GATHERED, Part.BUCKETS, Part.GRADIENTS)
_BEYOND_TENSORS = (Part.SLACK, Part.NCCL, Part.CONTEXT)
NCCL_CONNECTION_BYTES = 4 * MIB + 640 * 120 * 8 * 8 + 512 * 8 * 8 * 16
"""Buffers of one connection for the three protocols: Simple (NCCL_BUFFSIZE), LL128 (threads × elements of each × steps
× 8 bytes) and LL (threads × lines of each × steps × 16 bytes). Source: computeBuffSizes in NCCL's src/init.cc."""
NCCL_CHANNELS = {"nvlink": (8, 24, 32), "pcie": (1, 2, 4)}
"""Fewest, expected and most channels of a ring: twelve NVLinks of an A100 with two each, as NCCL_DEBUG=INFO says."""


def nccl(parallelism: ParallelismSpec, gpu: GpuSpec | None, phases: frozenset[Phase]) -> list[Component]:
    """Connections of NCCL: channels × connections × buffers; memory of the device that torch does not see.

    Each channel of a GPU receives from one neighbour in the ring, and from up to two in the tree, which is a chain
    within a node: the parent and a child. Of two GPUs each has one of them. The upper end of the band has a second
    communicator; the lower one a ring alone, as NCCL connects only what is used since 2.22.
    Source: src/transport/p2p.cc and src/graph/trees.cc of NCCL 2.20; the number of channels depends on links that are
    not known here, hence the wide band.
    """
    if parallelism.gpus == 1 or (gpu is not None and gpu.is_cpu):
        return []
    fewest, channels, most = NCCL_CHANNELS["nvlink" if gpu is None or over_nvlink(parallelism, gpu) else "pcie"]
    connections = 1 + min(2, parallelism.gpus - 1)
    size = channels * connections * NCCL_CONNECTION_BYTES
    low, high = fewest * NCCL_CONNECTION_BYTES, 2 * most * connections * NCCL_CONNECTION_BYTES
    because = f"{channels} channels × {connections} connections × {NCCL_CONNECTION_BYTES / MIB:.1f} MiB"
    return [Component(Part.NCCL, size, Basis.ASSUMED, phases, because, low, high)]


def beyond_shared(
    components: Sequence[Component], model: ModelSpec, training: TrainingSpec, card: CardTraits,
    trained: tuple[TensorGroup, ...], batches: Batches | None,
) -> list[Component]:  # fmt: skip
    """What a GPU of several needs beyond the tensors in `components`: in loading, and what its allocator keeps."""
    found = loading(components, model, training, trained)
    if not batches:
        return found
    if is_fsdp2(training):
        sharding, parts = sharding_of(model, training, trained), trained_parts(trained, training)
        return [*found, *beyond_tensors(components, model, training, card, parts, batches, sharding)]
    found += beyond_tensors(components, model, training, card, trained, batches)
    return [*found, *stream_slack(components, model, training), *loaded_slack(model, training)]


def stream_slack(components: Sequence[Component], model: ModelSpec, training: TrainingSpec) -> list[Component]:
    """What FSDP1's streams keep reserved: gathered weights and gradients are allocated on streams of their own.

    A block of the caching allocator serves its own stream only, so the pools of these streams stay at their largest
    while the compute stream peaks. The lists of a foreach step, as large as the pieces of the parameters, may find no
    block among those that the activations left. FSDP2 is replayed instead: see beyond_shared.

    There are units that are freed but not yet reusable. The host runs two all-gathers ahead (_FreeEventQueue in
    torch/distributed/fsdp/_limiter_utils.py): a unit that it has freed cannot be given out before the GPU is past it,
    for record_stream ties it to the compute stream. So is a trained unit's whole gradient to the stream that reduces
    it. Source: `BlockPool` and `get_free_block` in c10/cuda/CUDACachingAllocator.cpp.
    """
    tensors = [c for c in components if c.part not in _BEYOND_TENSORS]
    if is_zero(training.parallelism):
        return _zero_slack(tensors)
    if not flat_parameters(training) or training.parallelism.gpus == 1:
        return []
    own = [c for c in tensors if c.part in _OWN_STREAMS]
    compute = [c for c in tensors if c.part not in _OWN_STREAMS]
    temporaries = _largest([c for c in compute if c.part is Part.OPTIMIZER_TEMPORARIES])
    apart = _largest([c for c in compute if c.part is not Part.OPTIMIZER_TEMPORARIES]) + temporaries
    pools = sum(_largest([c for c in own if c.part is part]) for part in _OWN_STREAMS)
    units = units_of(model, training, 0).layer * (1 if training.adapter else 2)
    size = pools + apart - _largest(tensors) + units
    high = max(2 * (pools + _largest(compute) - _largest(tensors)) + temporaries, size + temporaries)
    because = "pools of the streams that gather and reduce, which the compute stream cannot use"
    return [Component(Part.SLACK, size, Basis.MODELLED, TRAINING, because, 0, high)]


def _zero_slack(tensors: Sequence[Component]) -> list[Component]:
    """The upper end of the band: DeepSpeed's step finds none of the blocks that the backward pass left large enough.

    It flattens gradients, and stage 3 gathers weights on a stream of its own. Source: `step` in
    deepspeed/runtime/zero/stage_1_and_2.py and stage3.py, __allgather_stream in partitioned_param_coordinator.py.
    Published runs of 7B models lie between none of it and half.
    """
    apart = (Part.GATHERED, Part.OPTIMIZER_TEMPORARIES)
    pools = [*([c for c in tensors if c.part is part] for part in apart), [c for c in tensors if c.part not in apart]]
    size = sum(map(_largest, pools)) - _largest(tensors)
    because = "flat gradients and gathered weights have pools of their own"
    return [Component(Part.SLACK, 0, Basis.MODELLED, TRAINING, because, 0, size)]


def _largest(components: Sequence[Component]) -> int:
    """The sum of the phase in which it is largest."""
    return max(sum(c.bytes for c in components if phase in c.phases) for phase in TRAINING)
