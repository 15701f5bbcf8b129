"""What older generations of transformers and bitsandbytes kept, added to a run of the installed ones.

The layers are those of the installed version; estimate/forward/generations.py says which generation kept what, and why.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import nn

from peftbench.base.errors import PeftbenchError
from peftbench.dryrun.trace.recorder import Recorder
from peftbench.dryrun.workload import Workload
from peftbench.estimate.forward.generations import (
    keeps_fused_cache,
    quantized_saves_input,
    repeats_keys_for_flash,
    rotary_table_bytes,
)  # fmt: skip
from peftbench.inputs.model.config_json import read_config
from peftbench.inputs.recipe import TrainingSpec
from peftbench.memory import Part, Phase


class OlderTransformers:
    """Hooks on a model; `cache` is what its outputs would hold, to be dropped with them."""

    def __init__(self, causal_lm: nn.Module, workload: Workload, recorder: Recorder) -> None:
        self.cache: list[torch.Tensor] = []
        self.recorder = recorder
        recipe = workload.recipe
        if not isinstance(recipe, TrainingSpec) or recipe.transformers == "5":
            return
        try:
            model = read_config(json.loads(workload.config), "", "")
        except PeftbenchError:  # an architecture that only the installed transformers knows
            return
        tables = rotary_table_bytes(model, recipe)
        if tables:
            recorder.scratch(tables, "cos and sin of every position, in every layer", Part.WEIGHTS)
        for name, module in causal_lm.named_modules():
            if keeps_fused_cache(model, recipe) and name.endswith("c_attn"):
                module.register_forward_hook(self._keep)
            if repeats_keys_for_flash(model, recipe) and hasattr(module, "num_key_value_groups"):
                module.repeats_keys = True
            if quantized_saves_input(recipe) and type(module).__name__ == "Linear4bit":
                module.register_forward_hook(_keep_on_node)

    def _keep(self, module: nn.Module, args: Any, out: torch.Tensor) -> None:
        if self.recorder.phase is Phase.FORWARD:  # and not when a checkpoint is recomputed
            self.cache.append(out)


def _keep_on_node(module: nn.Module, args: Any, out: Any) -> None:
    """The input lives as long as the node of the graph, as an attribute of MatMul4Bit's ctx did."""
    if out.grad_fn is not None:
        out.grad_fn.metadata["input"] = args[0]
