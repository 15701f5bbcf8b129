"""Gradients of trained vectors are summed over the tokens: what that sets aside reaches the peak of a step."""

from __future__ import annotations

import pytest

from peftbench.catalog.models import find_model
from peftbench.decide.from_options import training_recipes
from peftbench.estimate.tape.device import partial_sums_bytes, reducing_as, rows_as
from peftbench.estimate.training import estimate_training
from peftbench.memory import Phase

A100 = 108 * 2048 // 128


@pytest.mark.parametrize(
    ("method", "options", "traced_mib"),
    [("lora", {"use_dora": True}, 2001), ("ia3", {}, 1640), ("vera", {}, 1424)],
)
def test_the_backward_pass_agrees_with_the_dry_run(method: str, options: dict[str, bool], traced_mib: int) -> None:
    """As `peftbench plan --model Qwen/Qwen2.5-0.5B --no-gpu --loss liger --sequence-length 4096 --dry-run` has it."""
    (training,) = training_recipes((method,), {"loss": "liger", "sequence_length": 4096, **options})
    estimated = estimate_training(find_model("Qwen/Qwen2.5-0.5B"), training).allocated_in(Phase.BACKWARD)
    assert estimated >> 20 == pytest.approx(traced_mib, rel=0.005)


@pytest.mark.parametrize("outputs", [128, 896, 4096, 4097, 14_336])
def test_one_number_of_rows_stands_for_those_that_need_the_same(outputs: int) -> None:
    for tokens in (1, 1020, 1021, 2047, 2048, 2049, 100_000):
        assert partial_sums_bytes(rows_as(tokens), outputs, A100) == partial_sums_bytes(tokens, outputs, A100)


def test_cards_share_the_least_number_of_blocks_with_their_sums() -> None:
    widths = (2, 512, 2048, 8192, 11008)
    for rows in (512, 1024, 2048, 10240):
        for at_once in range(1, 3000, 7):
            least = reducing_as(at_once, rows, widths)
            assert least <= at_once and reducing_as(least, rows, widths) == least
            for width in widths:
                assert partial_sums_bytes(rows, width, least) == partial_sums_bytes(rows, width, at_once)
