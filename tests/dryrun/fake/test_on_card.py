"""Operations that a card runs as one kernel or in place, though fake tensors make them of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.filterwarnings("ignore")
for name in ("torch", "transformers", "peft", "bitsandbytes"):
    pytest.importorskip(name)

from peftbench.catalog.gpus import find_gpu  # noqa: E402
from peftbench.dryrun.trace.trace import Block, Trace  # noqa: E402
from peftbench.dryrun.workload import Workload, workload_of  # noqa: E402
from peftbench.inputs.recipe import DType, TrainingSpec  # noqa: E402
from peftbench.memory import Part  # noqa: E402

TINY = {
    "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 64, "vocab_size": 128, "max_position_embeddings": 64,
}  # fmt: skip
Run = Callable[[Workload], Trace]


def made(dry_run: Run, model_type: str, gpu: str, **options: Any) -> list[Block]:
    """What a step of full fine-tuning of a tiny model allocates."""
    config = {"model_type": model_type, **TINY}
    training = TrainingSpec(sequence_length=64, gradient_checkpointing=False, **options)
    return dry_run(workload_of(config, training, find_gpu(gpu))).blocks


def test_the_unfused_attention_adds_its_mask_in_place(dry_run: Run) -> None:
    """On a T4, where query heads share those of keys: the sum lives in the block of the product."""
    blocks = made(dry_run, "llama", "t4", dtype=DType.FLOAT16, autocast=False)
    scores = [block.operation for block in blocks if block.shape.endswith("64,64") and block.part is Part.ACTIVATIONS]
    assert "aten::_safe_softmax" in scores, scores
    before = scores[: scores.index("aten::_safe_softmax")]
    assert before.count("aten::add") == 1 and "aten::bmm" not in before


def test_a_norm_of_torch_is_one_kernel(dry_run: Run) -> None:
    operations = {block.operation for block in made(dry_run, "diffllama", "a100-80gb", attention="eager")}
    assert {"aten::_fused_rms_norm", "aten::_fused_rms_norm_backward"} <= operations
