"""Generate for a few rounds with transformers' own generate(), and tell the prompt's pass from the tokens after it."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn

from peftbench.inputs.case import Case
from peftbench.inputs.recipe.inference import InferenceSpec
from peftbench.libraries.model import causal_lm_of
from peftbench.measure.child.steps import Steps
from peftbench.memory import Phase


def generate(model: Any, case: Case, steps: Steps) -> None:
    """Run every round of the case: a fixed prompt, and as many new tokens as it asks for."""
    recipe = case.recipe
    assert isinstance(recipe, InferenceSpec)
    causal_lm, model = causal_lm_of(model), model.eval()
    watch = _Passes(steps, case.device == "cuda")
    causal_lm.register_forward_pre_hook(watch.before)
    causal_lm.register_forward_hook(watch.after)
    _never_stop(causal_lm)
    prompt = _prompt(recipe, causal_lm.config.vocab_size, case)
    for _ in range(steps.total):
        steps.begin()
        watch.passes = 0
        with torch.no_grad():
            model.generate(
                input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=max(recipe.new_tokens, 1),
                do_sample=False, use_cache=True,
            )  # fmt: skip
        steps.end(prefill_s=watch.prefilled_s - steps.began_s)
    steps.finish()


def _never_stop(causal_lm: Any) -> None:
    """Random weights may say end-of-text at any time: every round has all of its tokens."""
    generation = causal_lm.generation_config
    generation.eos_token_id = None
    generation.pad_token_id = 0


def _prompt(recipe: InferenceSpec, vocab_size: int, case: Case) -> torch.Tensor:
    generator = torch.Generator().manual_seed(case.seed)
    shape = (recipe.batch_size, recipe.prompt_tokens)
    return torch.randint(vocab_size, shape, generator=generator).to(case.device)


class _Passes:
    """Marks the forward passes of a generation: the first is of the prompt."""

    def __init__(self, steps: Steps, on_card: bool) -> None:
        self.steps, self.on_card = steps, on_card
        self.passes = 0
        self.prefilled_s = 0.0

    def before(self, module: nn.Module, args: Any) -> None:
        """A pass begins; all after the second are of one phase."""
        if self.passes < 2:
            self.steps.mark(Phase.DECODE if self.passes else Phase.PREFILL)
        self.passes += 1

    def after(self, module: nn.Module, args: Any, outputs: Any) -> None:
        """The prompt is done when its logits are there."""
        if self.passes == 1:
            if self.on_card:
                torch.cuda.synchronize()
            self.prefilled_s = time.perf_counter()
