"""Run a generation request on a fake model: one pass over the prompt, then token by token with a growing cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from peftbench.dryrun.child.peft_config import takes_task_ids, virtual_tokens
from peftbench.dryrun.trace.recorder import Recorder
from peftbench.dryrun.workload import Workload
from peftbench.inputs.recipe import InferenceSpec
from peftbench.libraries.model import causal_lm_of
from peftbench.memory import Part, Phase

CACHES = ("past_key_values", "cache_params", "state", "mems", "past_buckets_states")
"""What models call it: attention, Mamba, RWKV, XLNet, Reformer; a model without one is given all tokens anew."""


class Generation:
    """Greedy decoding, holding what transformers' `_sample` holds: the cache, and the last logits in float32."""

    def __init__(self, model: nn.Module, workload: Workload, recorder: Recorder) -> None:
        assert isinstance(workload.recipe, InferenceSpec)
        self.recipe = workload.recipe
        self.model, self.recorder = model.eval(), recorder
        self.cache = {} if virtual_tokens(model) else _empty_cache(causal_lm_of(model))
        self.logits: torch.Tensor | None = None

    @torch.no_grad()
    def run(self) -> None:
        """The prompt, and every new token but the last, which is never fed back."""
        tokens = self._ones(self.recipe.prompt_tokens)
        self.recorder.mark(Phase.PREFILL, 0)
        self._forward(tokens, self.recipe.prompt_tokens)
        for step in range(1, self.recipe.new_tokens):
            self.recorder.mark(Phase.DECODE, step)
            tokens = torch.cat([tokens, self._ones(1)], dim=-1)
            self._forward(tokens[:, -1:] if self.cache else tokens, tokens.shape[1])

    def _ones(self, tokens: int) -> torch.Tensor:
        made = torch.ones((self.recipe.batch_size, tokens), dtype=torch.long, device=self.recorder.device_type)
        self.recorder.is_part(Part.WORKSPACE, made)
        return made

    def _forward(self, tokens: torch.Tensor, attended: int) -> None:
        """Virtual tokens come in front of the prompt only: later they are in the cache."""
        model: Any = self.model
        kwargs: dict[str, Any] = {"use_cache": True, "logits_to_keep": 1, **self.cache}
        if takes_task_ids(model):
            kwargs["task_ids"] = torch.zeros(tokens.shape[:1], dtype=torch.long, device=tokens.device)
        if self.cache and virtual_tokens(model):
            attended += virtual_tokens(model)
            model = model.get_base_model()
            kwargs.pop("task_ids", None)
        outputs = model(input_ids=tokens, attention_mask=self._ones(attended), **kwargs)
        caches = self.cache | {name: outputs[name] for name in CACHES if outputs.get(name) is not None}
        self.cache = {name: cache for name, cache in caches.items() if next(cached_tensors(cache), None) is not None}
        self.recorder.is_part(Part.KV_CACHE, *cached_tensors(self.cache))
        self.logits = outputs.logits[:, -1, :].to(copy=True, dtype=torch.float32)
        self.recorder.is_part(Part.LOGITS, self.logits)


def _empty_cache(causal_lm: Any) -> dict[str, Any]:
    """What a model is given first, under the name that it has for it.

    Source: _prepare_cache_for_generation in transformers/generation/utils.py.
    """
    from transformers import DynamicCache

    supports = getattr(causal_lm, "_supports_default_dynamic_cache", None)
    if supports is None or not supports():
        return {}
    name = "cache_params" if "mamba" in type(causal_lm).__name__.lower() else "past_key_values"
    return {name: DynamicCache(config=causal_lm.config.get_text_config(decoder=True))}


def cached_tensors(cache: Any) -> Iterator[torch.Tensor]:
    """Keys, values and recurrent states, however a cache of transformers arranges them."""
    if isinstance(cache, torch.Tensor):
        yield cache
    elif isinstance(cache, (list, tuple, dict)):
        for item in cache.values() if isinstance(cache, dict) else cache:
            yield from cached_tensors(item)
    elif "Cache" in type(cache).__name__ or "Layer" in type(cache).__name__:
        yield from cached_tensors(vars(cache))
