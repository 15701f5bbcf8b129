"""The recipe of a run: training or inference, with its adapter, quantization and GPUs."""

from __future__ import annotations

from peftbench.inputs.recipe.adapter import ALL_LINEAR, AdapterSpec, left_out_note
from peftbench.inputs.recipe.dtype import DType
from peftbench.inputs.recipe.inference import InferenceSpec
from peftbench.inputs.recipe.parallelism import ONE_GPU, ParallelismSpec
from peftbench.inputs.recipe.quantization import QuantizationSpec
from peftbench.inputs.recipe.training import TrainingSpec

__all__ = [
    "ALL_LINEAR",
    "ONE_GPU",
    "AdapterSpec",
    "DType",
    "InferenceSpec",
    "ParallelismSpec",
    "QuantizationSpec",
    "TrainingSpec",
    "left_out_note",
]
