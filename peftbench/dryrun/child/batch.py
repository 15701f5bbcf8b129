"""The tensors that a collator hands to a model of each task, and the loss where its class has none."""

from __future__ import annotations

import json
from typing import Any

import torch
import torch.nn.functional as F

from peftbench.dryrun.workload import Workload
from peftbench.inputs.media.audio import audio_of

SIMILARITY_SCALE = 20.0
"""Default of MultipleNegativesRankingLoss in sentence-transformers."""
LONGEST_WINDOW_S = 30.0
"""What Whisper pads every recording to."""
WIDENED = ("logits", "start_logits", "end_logits", "last_hidden_state", "encoder_last_hidden_state", "pooler_output")
"""Outputs that accelerate's convert_outputs_to_fp32 casts."""


def text_batch(workload: Workload, task: str, samples: int, length: int, device: str) -> dict[str, torch.Tensor]:
    """Tokens and labels, int64: (samples, length), labels of a sequence (samples,), of a target (samples, target)."""

    def ones(*shape: int) -> torch.Tensor:
        return torch.ones(shape, dtype=torch.long, device=device)

    batch = {"input_ids": ones(samples, length), "attention_mask": ones(samples, length)}
    if task == "seq-cls":
        return {**batch, "labels": ones(samples)}
    if task == "question-ans":
        return {**batch, "start_positions": ones(samples), "end_positions": ones(samples)}
    if task == "feature-extraction":
        return batch
    target = (workload.task_spec.target_length or length) if task == "seq-2-seq-lm" else length
    return {**batch, "labels": ones(samples, target)}


def audio_batch(workload: Workload, config: Any, samples: int, length: int, like: torch.Tensor) -> dict[str, Any]:
    """What an encoder of speech is given, in the type and on the device of `like`, and the text it is to become."""
    heard = audio_of(json.loads(workload.config), workload.task_spec.audio_seconds or LONGEST_WINDOW_S)
    most = getattr(config, "max_target_positions", length)
    target = workload.task_spec.target_length or min(length, most)
    labels = torch.ones((samples, target), dtype=torch.long, device=like.device)
    return {"input_features": like.new_empty((samples, *heard.features)), "labels": labels}


def contrastive_loss(anchors: Any, positives: Any, mask: torch.Tensor) -> torch.Tensor:
    """Each anchor against the positives of the whole batch.

    Source: MultipleNegativesRankingLoss and mean pooling of sentence-transformers.
    """
    left, right = (F.normalize(_mean(outputs.last_hidden_state, mask), dim=-1) for outputs in (anchors, positives))
    scores = left @ right.T * SIMILARITY_SCALE
    return F.cross_entropy(scores, torch.arange(scores.shape[0], device=scores.device))


def _mean(hidden_states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    wide = mask.unsqueeze(-1).expand(hidden_states.shape).to(hidden_states.dtype)
    return (hidden_states * wide).sum(1) / wide.sum(1).clamp(min=1e-9)
