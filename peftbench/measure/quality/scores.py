"""What two models' predictions of the same block of tokens have in common, and how the text fares under each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch


@torch.inference_mode()
def logits_of(model: Any, block: torch.Tensor) -> torch.Tensor:
    """[tokens - 1, vocabulary], float32, on the model's device: predictions of every token but the first."""
    device = next(model.parameters()).device
    logits: torch.Tensor = model(input_ids=block[None].to(device)).logits
    return logits[0, -len(block) : -1].float()  # virtual tokens of a prompt come before those of the block


@dataclass
class Scores:
    """One model's scores over the blocks, in order."""

    nll: list[float] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)
    top1: list[float] = field(default_factory=list)
    largest: float = 0.0
    """Difference of a logit."""
    _squares: float = 0.0
    _spread: float = 0.0

    def add(self, logits: torch.Tensor, block: torch.Tensor, standard: torch.Tensor | None) -> None:
        """One block; `standard` are the logits that it is compared with, None for a standard itself."""
        own = torch.log_softmax(logits, -1)
        wanted = block[1:].to(logits.device)
        self.nll.append(-float(own.gather(1, wanted[:, None]).mean()))
        if standard is not None:
            self._compare(logits, own, standard.to(logits.device))

    def _compare(self, logits: torch.Tensor, own: torch.Tensor, standard: torch.Tensor) -> None:
        theirs = torch.log_softmax(standard, -1)
        kl = float((theirs.exp() * (theirs - own)).sum(-1).mean())
        self.kl.append(max(kl, 0.0))  # where both are the same, float32 may round it to below 0
        self.top1.append(float((theirs.argmax(-1) == own.argmax(-1)).float().mean()))
        difference = logits - standard
        self.largest = max(self.largest, float(difference.abs().max()))
        self._squares += float(difference.square().mean())
        self._spread += float(standard.var(-1, correction=0).mean())

    @property
    def relative_rmse(self) -> float | None:
        """The root of the logits' mean squared difference, over the standard's spread over the vocabulary."""
        return math.sqrt(self._squares / self._spread) if self._spread else None


def score(model: Any, blocks: torch.Tensor, standards: Sequence[torch.Tensor]) -> Scores:
    """The model on these blocks against logits that are known."""
    found = Scores()
    for block, standard in zip(blocks, standards, strict=True):
        found.add(logits_of(model, block), block, standard)
    return found
