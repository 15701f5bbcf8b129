"""The search for the fastest recipe on some cards, against trying everything; and what offloading asks of the host."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from peftbench.base.errors import SpecError
from peftbench.base.units import GIB
from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.models import find_model
from peftbench.decide.card import settle_training
from peftbench.decide.choose.fit import COPIED, GATHERED_ONCE, SHARDED, Setup, Shape, Sharing, fastest_setup
from peftbench.decide.from_options import training_recipes
from peftbench.decide.verdict import Fit, judge
from peftbench.estimate.time.step import step_time
from peftbench.estimate.training import estimate_training
from peftbench.inputs.recipe import ParallelismSpec, TrainingSpec

SEQUENCES = 64
STRATEGIES = ("ddp", "zero1", "zero2", "zero3", "fsdp", "fsdp-grad-op")
CARDS = ("t4", "rtx4090", "l40s", "a100-80gb", "h100-sxm", "b200")
SHAPES = ((1, 1), (2, 1), (4, 1), (8, 1), (16, 2))
MOST_LOST = 0.25
"""Of the speed: where a strategy that is not searched needs a little less, and so fits twice the micro-batch."""


def ways(recipe: TrainingSpec, shape: Shape) -> Iterator[TrainingSpec]:
    """Every strategy, micro-batch and checkpointing that trains SEQUENCES a step."""
    each = SEQUENCES // shape.gpus
    spread = [ParallelismSpec(gpus=shape.gpus, nodes=shape.nodes, strategy=strategy) for strategy in STRATEGIES]
    for parallelism in spread if shape.gpus > 1 else [ParallelismSpec()]:
        for checkpointing in (False, True):
            for size in (1 << power for power in range(each.bit_length())):
                yield replace(
                    recipe, parallelism=parallelism, gradient_checkpointing=checkpointing, micro_batch_size=size,
                    gradient_accumulation_steps=each // size,
                )  # fmt: skip


def most_tokens_per_s(model_name: str, recipe: TrainingSpec, shape: Shape) -> float:
    """Of all ways that fit; 0 where none does."""
    model, best = find_model(model_name), 0.0
    for way in ways(settle_training(model, recipe, shape.gpu)[0], shape):
        try:
            fits = judge(estimate_training(model, way, shape.gpu), shape.gpu).fit is Fit.FITS
        except SpecError:
            continue
        step = step_time(model, way, shape.gpu) if fits else None
        best = max(best, step.tokens_per_s if step else 0.0)
    return best


def shortfall(model_name: str, method: str, card: str, gpus: int, nodes: int) -> float | None:
    """The share of the speed that the search leaves; None where nothing fits."""
    (recipe,) = training_recipes((method,), {})
    shape = Shape(find_gpu(card), gpus, nodes)
    best = most_tokens_per_s(model_name, recipe, shape)
    found = fastest_setup(find_model(model_name), recipe, shape, SEQUENCES, "transformers")
    assert bool(found) == bool(best)
    return 1 - found.step.tokens_per_s / best if found else None


@pytest.mark.parametrize(
    ("model", "method", "card", "gpus", "nodes"),
    [
        ("8b", "full", "h100-sxm", 8, 1),  # shards reach a larger micro-batch than copies
        ("0.6b", "full", "rtx4090", 16, 2),  # weights gathered once a step
        ("70b", "qlora", "b200", 4, 1),  # shards spare the recomputation
        ("70b", "qlora", "rtx4090", 4, 1),  # only ZeRO-3 fits
        ("8b", "qlora", "t4", 1, 1),
    ],
)
def test_the_search_finds_what_trying_everything_finds(
    model: str, method: str, card: str, gpus: int, nodes: int
) -> None:
    lost = shortfall(model, method, card, gpus, nodes)
    assert lost is None or lost < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("model", ["0.6b", "8b", "70b"])
def test_the_search_seldom_loses_and_never_much(model: str, card: str) -> None:
    """A setup is found where, and only where, some way fits; one of the fifteen may be slower than the fastest."""
    lost = [shortfall(model, method, card, *each) for method in ("full", "lora", "qlora") for each in SHAPES]
    fitting = [each for each in lost if each is not None]
    assert max(fitting, default=0) < MOST_LOST
    assert sum(each > 0.01 for each in fitting) <= 1


def fastest(model: str, method: str, card: str, gpus: int, sharing: Sharing) -> Setup | None:
    (recipe,) = training_recipes((method,), {})
    return fastest_setup(find_model(model), recipe, Shape(find_gpu(card), gpus, 1), SEQUENCES, "transformers", sharing)


@pytest.mark.parametrize("strategy", [COPIED, SHARDED, GATHERED_ONCE, "zero2"])
def test_a_strategy_that_was_asked_for_is_kept(strategy: str) -> None:
    setup = fastest("0.6b", "lora", "h100-sxm", 4, Sharing(strategy))
    assert setup and setup.training.parallelism.strategy == strategy


def test_whole_gradients_that_do_not_fit_are_reduced_each_time() -> None:
    """70B in full with offload: FSDP's whole gradients alone are 131 GiB, more than any of these cards has."""
    setup = fastest("70b", "full", "h200", 8, Sharing(SHARDED, cpu_offload=True))
    assert setup and (setup.training.sync_each_batch or setup.training.gradient_accumulation_steps == 1)
    small = fastest("70b", "full", "h100-sxm", 4, Sharing(SHARDED, cpu_offload=True))
    assert small and small.training.gradient_accumulation_steps > 1 and small.training.sync_each_batch


def test_offload_makes_room_that_the_host_pays_for() -> None:
    """8B full: float32 weights, gradients and two moments are 16 bytes of each of 8.03 billion parameters."""
    assert fastest("8b", "full", "rtx4090", 1, Sharing()) is None
    setup = fastest("8b", "full", "rtx4090", 1, Sharing(cpu_offload=True))
    assert setup and setup.training.parallelism.cpu_offload
    assert setup.host_bytes == pytest.approx(16 * 8.03e9, rel=0.01)


def test_every_host_keeps_the_part_of_its_cards() -> None:
    one, four = (fastest("8b", "full", "rtx4090", gpus, Sharing(cpu_offload=True)) for gpus in (1, 4))
    assert one and four
    assert four.host_bytes == pytest.approx(one.host_bytes, rel=0.01)
    assert four.step.tokens_per_s > 2 * one.step.tokens_per_s


def test_four_bits_of_70b_in_the_host_take_about_40_gib() -> None:
    """68.5 billion 4-bit weights are 32 GiB; their constants, the embeddings and the head the rest."""
    setup = fastest("70b", "qlora", "rtx3090", 2, Sharing(cpu_offload=True))
    assert setup and 36 * GIB < setup.host_bytes < 44 * GIB


def test_without_offload_the_host_keeps_nothing() -> None:
    setup = fastest("8b", "lora", "a100-80gb", 2, Sharing())
    assert setup and setup.host_bytes == 0


def test_prefixes_are_never_checkpointed() -> None:
    """PEFT's prefixes do not work with gradient checkpointing."""
    setup = fastest("0.6b", "prefix-tuning", "rtx4090", 1, Sharing())
    assert setup and not setup.training.gradient_checkpointing
