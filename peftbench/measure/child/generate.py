"""Generate for a few rounds with transformers' own generate(); the prompt's pass is timed apart from the tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from peftbench.inputs.case import Case
from peftbench.inputs.recipe import InferenceSpec
from peftbench.libraries.model import causal_lm_of
from peftbench.measure.child.steps import Steps, now_s
from peftbench.memory import Phase


def generate(model: Any, case: Case, steps: Steps) -> None:
    """Run every round of the case: a fixed prompt, and as many new tokens as it asks for."""
    recipe = case.recipe
    assert isinstance(recipe, InferenceSpec)
    causal_lm, model = causal_lm_of(model), model.eval()
    watch = _Passes(steps)
    causal_lm.register_forward_pre_hook(watch.before)
    causal_lm.register_forward_hook(watch.after)
    causal_lm.generation_config.eos_token_id = None  # random weights may end a text before it has all its tokens
    causal_lm.generation_config.pad_token_id = 0
    shape, generator = (recipe.batch_size, recipe.prompt_tokens), torch.Generator().manual_seed(case.seed)
    prompt = torch.randint(causal_lm.config.vocab_size, shape, generator=generator).to(case.device)
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


class _Passes:
    """Marks the forward passes of a generation: the first is of the prompt."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
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
            self.prefilled_s = now_s(self.steps.case.device)
