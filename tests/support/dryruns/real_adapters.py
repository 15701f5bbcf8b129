"""PEFT's adapters on a tiny real model of the CPU, and the same figures as a dry run's trace has them.

What a card holds of an adapter: its parameters and buffers, and SHiRA's indices, an attribute that follows the weights.
Gradients are counted by their storages: one that is a piece of a larger tensor keeps all of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch

from peftbench.dryrun.child.peft_config import peft_config
from peftbench.dryrun.trace.trace import Trace
from peftbench.dryrun.workload import Workload
from peftbench.inputs.recipe import AdapterSpec, InferenceSpec, TrainingSpec
from peftbench.memory import Part, Phase

TOKENS = 16
SEQUENCES = 2
TINY: dict[str, Any] = {
    "model_type": "llama", "vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0,
}  # fmt: skip

TINY_OPTIONS: dict[str, dict[str, Any]] = {
    "lora": {"r": 4}, "adalora": {"r": 6}, "hira": {"r": 4}, "loha": {"r": 4}, "lokr": {"r": 2},
    "oft": {"oft_block_size": 16}, "randlora": {"r": 5}, "fourierft": {"n_frequency": 100},
    "waveft": {"n_frequency": 70}, "glora": {"r": 4}, "hra": {"r": 4}, "miss": {"r": 4}, "road": {"group_size": 16},
    "shira": {"r": 4}, "c3a": {"block_size": 16}, "delora": {"r": 4}, "gralora": {"r": 4}, "deft": {"r": 4},
    "psoft": {"r": 4}, "peanut": {"r": 4}, "vblora": {"r": 2, "num_vectors": 8, "vector_length": 16},
    "poly": {"r": 4}, "lily": {"r": 4}, "trainable_tokens": {"token_indices": "1,2,3"},
    "adaption_prompt": {"adapter_len": 5, "adapter_layers": 2}, "frod": {"sparse_rate": 0.05}, "adamss": {"r": 8},
}  # fmt: skip


class Held(NamedTuple):
    """What a model with an adapter has in memory."""

    trainable_parameters: int
    adapter_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    """AdamW's: two averages in the type of each tensor that has a gradient, and a float32 counter."""


def adapter_of(kind: str) -> AdapterSpec:
    options = dict(TINY_OPTIONS.get(kind, {}))
    rank = options.pop("r", None)
    return AdapterSpec(peft_type=kind, r=rank, options=tuple(sorted(options.items())))


def workload_of(adapter: AdapterSpec | None = None, adapter_config: str = "", **recipe: Any) -> Workload:
    options = {"gradient_checkpointing": False, "sequence_length": TOKENS, "micro_batch_size": SEQUENCES, **recipe}
    training = TrainingSpec(adapter=adapter, **options)
    return Workload(config=json.dumps(TINY), recipe=training, adapter_config=adapter_config)


def generation_of(adapter: AdapterSpec) -> Workload:
    request = InferenceSpec(prompt_tokens=TOKENS, new_tokens=3, batch_size=SEQUENCES, adapter=adapter)
    return Workload(config=json.dumps(TINY), recipe=request)


# ── real ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def base_model() -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = {key: value for key, value in TINY.items() if key != "model_type"}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **config), dtype=torch.bfloat16)


def really_held(workload: Workload, base: Any) -> Held:
    """After one step of PEFT's adapter on this model. Raises what PEFT raises."""
    from peft import get_peft_model

    before = {id(tensor) for tensor in _tensors(base)} | {tensor.data_ptr() for tensor in _tensors(base)}
    config = peft_config(workload)
    base.config.use_cache = config.peft_type != "XLORA"
    model: Any = get_peft_model(base, config)
    new = [tensor for tensor in _tensors(model) if not before & {id(tensor), tensor.data_ptr()}]
    added = {id(tensor): tensor for tensor in (*new, *(t for t in model.parameters() if t.requires_grad))}.values()
    trained = [tensor for tensor in added if tensor.requires_grad]
    held = _whole_vectors(model) + sum(tensor.nbytes for tensor in added)
    with torch.backends.mkldnn.flags(enabled=False):  # oneDNN has no LSTM in this type for every CPU
        _step(model, config.peft_type)
    with_gradient = [tensor for tensor in trained if tensor.grad is not None]
    gradients: Any = {tensor.grad.untyped_storage()._cdata: tensor.grad for tensor in with_gradient}
    return Held(
        sum(tensor.numel() for tensor in trained),
        held,
        sum(gradient.untyped_storage().nbytes() for gradient in gradients.values()),
        sum(2 * tensor.nbytes + 4 for tensor in with_gradient),
    )


def _tensors(model: Any) -> Iterable[torch.Tensor]:
    named = [*model.parameters(), *model.buffers()]
    for module in model.modules():
        named.extend(getattr(module, "shira_indices", {}).values())
    return {id(tensor): tensor for tensor in named}.values()


def _whole_vectors(model: Any) -> int:
    """PSOFT keeps r rows of the right singular vectors: on a card, where rows come first, these hold all of them.

    Source: linalg_svd in torch/_meta_registrations.py.
    """
    caches = [module for module in model.modules() if hasattr(module, "_psoft_A_cache")]
    kept = [next(iter(module._psoft_A_cache.values())) for module in caches]
    pairs = zip(caches, kept, strict=True)
    return sum((min(module.in_features, module.out_features) - len(rows)) * rows[0].nbytes for module, rows in pairs)


def _step(model: Any, kind: str) -> None:
    ids = torch.randint(0, TINY["vocab_size"], (SEQUENCES, TOKENS))
    batch = {"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)}
    if kind in ("POLY", "MULTITASK_PROMPT_TUNING"):
        batch["task_ids"] = torch.zeros(SEQUENCES, dtype=torch.long)
    model.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(**batch).loss
    loss.backward()


# ── dry ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def dryly_held(trace: Trace) -> Held:
    return Held(
        trace.facts["trainable_parameters"],
        alive(trace, Part.ADAPTERS, Phase.FORWARD, 0),
        alive(trace, Part.GRADIENTS, Phase.STEP, 0),
        alive(trace, Part.OPTIMIZER, Phase.FORWARD, 1),
    )


def alive(trace: Trace, part: Part, phase: Phase, step: int) -> int:
    """Bytes of this part when the phase of that step begins."""
    position = next(mark.position for mark in trace.marks if (mark.phase, mark.step) == (phase, step))
    blocks = set()
    for event in trace.events[:position]:
        (blocks.add if event >= 0 else blocks.discard)(event if event >= 0 else ~event)
    return sum(trace.blocks[number].bytes for number in blocks if trace.blocks[number].part is part)
