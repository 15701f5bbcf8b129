"""What is not known of a step's time: why there is no figure at all, or why the one there is has a wide band."""

from __future__ import annotations

from peftbench.estimate.peft_types.built_weights import builds_weights
from peftbench.estimate.sharding.links import over_nvlink
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe.dtype import DType
from peftbench.inputs.recipe.training import TrainingSpec


def unknown_time(training: TrainingSpec, gpu: GpuSpec) -> str:
    """Why no time can be expected; empty where one can.

    The catalogue has 16-bit rates. Float32 weights are multiplied at those under autocast; without, torch neither uses
    them nor TF32, unless told to.
    """
    if not gpu.tensor_flops or not gpu.memory_bandwidth:
        return f"the rates of {_card(gpu)} are not known"
    if training.dtype is DType.FLOAT32 and not training.autocast:
        return "products are in float32, whose rate is not in the catalogue; with --autocast they are in 16 bit"
    return ""


def doubt_about(model: ModelSpec, training: TrainingSpec, gpu: GpuSpec, calibrated: bool) -> str:
    """Why a time is uncalibrated; empty where it is not. `calibrated`: plain steps on this card were measured."""
    parallel = training.parallelism
    if not calibrated:
        return f"no steps on {_card(gpu)} published"
    if builds_weights(training):
        return "no constant was fitted to adapters that build weights in every pass"
    if model.num_experts:
        return "no steps of a mixture of experts published"
    if training.quantization and training.quantization.quant_type == "int8":
        return "no steps with 8-bit weights published"
    if parallel.gpus > 1 and not over_nvlink(parallel, gpu):
        return "no steps of several GPUs over PCIe published"
    return ""


def _card(gpu: GpuSpec) -> str:
    if gpu.is_cpu:
        return "a CPU"
    return {"given": "a card that is only given by its memory", "local": gpu.product}.get(gpu.name, gpu.name)
