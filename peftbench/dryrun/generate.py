"""Run a generation request on a fake model: one pass over the prompt, then token by token with a growing cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from peftbench.dryrun.adapter import takes_task_ids, virtual_tokens
from peftbench.dryrun.recorder import Recorder
from peftbench.dryrun.train import Mark
from peftbench.dryrun.workload import Workload
from peftbench.memory import Part, Phase
from peftbench.spec.inference import InferenceSpec


class Generation:
    """Greedy decoding, holding what transformers' `_sample` holds: the cache, and the last logits in float32."""

    def __init__(self, model: nn.Module, workload: Workload, recorder: Recorder, mark: Mark) -> None:
        assert isinstance(workload.recipe, InferenceSpec)
        self.recipe = workload.recipe
        self.model, self.recorder, self.mark = model.eval(), recorder, mark
        self.cache: Any = None
        self.logits: torch.Tensor | None = None

    @torch.no_grad()
    def run(self) -> None:
        """The prompt, and every new token but the last, which is never fed back."""
        tokens = self._ones(self.recipe.prompt_tokens)
        self.mark(Phase.PREFILL, 0)
        self._forward(tokens, self.recipe.prompt_tokens)
        for step in range(1, self.recipe.new_tokens):
            self.mark(Phase.DECODE, step)
            tokens = torch.cat([tokens, self._ones(1)], dim=-1)
            self._forward(tokens[:, -1:], tokens.shape[1])

    def _ones(self, tokens: int) -> torch.Tensor:
        made = torch.ones((self.recipe.batch_size, tokens), dtype=torch.long, device=self.recorder.device_type)
        self.recorder.is_part(Part.WORKSPACE, made)
        return made

    def _forward(self, tokens: torch.Tensor, attended: int) -> None:
        """Virtual tokens come in front of the prompt only: later they are in the cache."""
        model: Any = self.model
        kwargs: dict[str, Any] = {"past_key_values": self.cache, "use_cache": True, "logits_to_keep": 1}
        if takes_task_ids(model):
            kwargs["task_ids"] = torch.zeros(tokens.shape[:1], dtype=torch.long, device=tokens.device)
        if self.cache is not None and virtual_tokens(model):
            attended += virtual_tokens(model)
            model = model.get_base_model()
            kwargs.pop("task_ids", None)
        outputs = model(input_ids=tokens, attention_mask=self._ones(attended), **kwargs)
        self.cache = outputs.past_key_values
        self.recorder.is_part(Part.KV_CACHE, *cached_tensors(self.cache))
        self.logits = outputs.logits[:, -1, :].to(copy=True, dtype=torch.float32)
        self.recorder.is_part(Part.LOGITS, self.logits)


def cached_tensors(cache: Any) -> list[torch.Tensor]:
    """Keys, values and recurrent states of every layer of a transformers cache."""
    found = []
    for layer in getattr(cache, "layers", None) or ():
        found += [value for value in vars(layer).values() if isinstance(value, torch.Tensor)]
    return found
