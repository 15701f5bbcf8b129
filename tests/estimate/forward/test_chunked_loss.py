"""The chunked loss with a trained head: tables of gradients that are summed over the chunks, and then with another."""

from __future__ import annotations

import pytest

from peftbench.catalog.models import find_model
from peftbench.estimate.training import estimate_training
from peftbench.inputs.recipe import TrainingSpec
from peftbench.memory import Phase

QWEN = "Qwen/Qwen3-0.6B"


@pytest.mark.parametrize(
    ("model", "options", "traced_mib"),
    [
        (QWEN, {}, 4863),  # tied: the head's sum waits for the embeddings' gradient, which is added in place
        (QWEN, {"gradient_checkpointing": False}, 6519),  # three tables where the second chunk's gradient is added
        (QWEN, {"dtype": "float32"}, 9712),  # autocast's copy of the head
        ("llama-3.2-1b", {}, 9955),
        ("llama-3.2-1b", {"gradient_checkpointing": False}, 10_500),
        ("llama-2-7b", {}, 51_434),  # untied
    ],
)
def test_the_backward_pass_agrees_with_the_dry_run(model: str, options: dict[str, object], traced_mib: int) -> None:
    """As `peftbench plan --no-gpu --method full --loss chunked --sequence-length 1024 --dry-run` has it."""
    training = TrainingSpec(loss="chunked", sequence_length=1024, **options)
    estimated = estimate_training(find_model(model), training).allocated_in(Phase.BACKWARD)
    assert estimated >> 20 == pytest.approx(traced_mib, rel=0.004)
