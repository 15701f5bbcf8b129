"""Experts as transformers before 5 had them, modules that run in turn, in place of those of the installed one."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from peftbench.base.errors import PeftbenchError
from peftbench.dryrun.workload import Workload
from peftbench.inputs.model.config_json import read_config
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.model.weights import built_by
from peftbench.inputs.recipe import TrainingSpec


def with_split_experts(causal_lm: Any, workload: Workload) -> Any:
    """The model, with experts of its layers exchanged where the recipe's generation had modules; else as it is."""
    spec = _spec_of(workload)
    if spec is None or not spec.split_experts:
        return causal_lm
    for layer in causal_lm.model.layers:
        if hasattr(layer.mlp, "experts"):
            layer.mlp = _Block(spec, next(layer.mlp.parameters()).dtype)
    return causal_lm


def splits_experts(workload: Workload) -> bool:
    """Whether with_split_experts exchanges some."""
    spec = _spec_of(workload)
    return spec is not None and spec.split_experts


def _spec_of(workload: Workload) -> ModelSpec | None:
    """None for generation, and for an architecture that only the installed transformers knows."""
    if not isinstance(workload.recipe, TrainingSpec):
        return None
    try:
        return built_by(read_config(json.loads(workload.config), "", ""), workload.recipe.transformers)
    except PeftbenchError:
        return None


class _Expert(nn.Module):
    """Source: MixtralBlockSparseTop2MLP of transformers 4.48, Qwen3MoeMLP of 4.57."""

    def __init__(self, spec: ModelSpec, dtype: torch.dtype) -> None:
        super().__init__()
        from transformers.activations import ACT2FN

        names = spec.family.split_experts
        assert names is not None  # the caller asks
        self.names = (*names.inner, names.down)
        hidden, inner = spec.hidden_size, spec.moe_intermediate_size
        for name in names.inner:
            setattr(self, name, nn.Linear(hidden, inner, bias=False, device="meta", dtype=dtype))
        setattr(self, names.down, nn.Linear(inner, hidden, bias=False, device="meta", dtype=dtype))
        self.act_fn = ACT2FN[spec.hidden_act]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up, down = (getattr(self, name) for name in self.names)
        found: torch.Tensor = down(self.act_fn(gate(x)) * up(x))
        return found


class _Block(nn.Module):
    """Source: MixtralSparseMoeBlock of transformers 4.48. An expert is taken to get as many tokens as any other."""

    def __init__(self, spec: ModelSpec, dtype: torch.dtype) -> None:
        super().__init__()
        self.top_k, self.num_experts = spec.num_experts_per_tok, spec.num_experts
        self.gate = nn.Linear(spec.hidden_size, self.num_experts, bias=False, device="meta", dtype=dtype)
        self.experts = nn.ModuleList(_Expert(spec, dtype) for _ in range(self.num_experts))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        batch_size, sequence_length, hidden_dim = hidden_states.shape
        hidden_states = hidden_states.view(-1, hidden_dim)
        router_logits = self.gate(hidden_states)
        routing_weights = functional.softmax(router_logits, dim=1, dtype=torch.float)
        routing_weights, selected_experts = torch.topk(routing_weights, self.top_k, dim=-1)
        routing_weights /= routing_weights.sum(dim=-1, keepdim=True)
        routing_weights = routing_weights.to(hidden_states.dtype)
        final_hidden_states = torch.zeros_like(hidden_states)
        expert_mask = functional.one_hot(selected_experts, num_classes=self.num_experts).permute(2, 1, 0)
        each = len(hidden_states) * self.top_k // self.num_experts
        for expert_layer in self.experts:
            idx, top_x = expert_mask.new_empty((each, 2)).unbind(1)  # torch.where(expert_mask[expert_idx])
            current_state = hidden_states[None, top_x].reshape(-1, hidden_dim)
            current_hidden_states = expert_layer(current_state) * routing_weights[top_x, idx, None]
            final_hidden_states.index_add_(0, top_x, current_hidden_states.to(hidden_states.dtype))
        return final_hidden_states.reshape(batch_size, sequence_length, hidden_dim)
