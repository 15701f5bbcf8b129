"""FSDP2 as torch runs it: what is gathered, fetched ahead and reduced at each moment, and in which type."""

from __future__ import annotations

from dataclasses import replace

import pytest

from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.models import find_model
from peftbench.decide.recipe import LORA, quantization_for
from peftbench.estimate.forward.moments import Stretch
from peftbench.estimate.sharding.fsdp2 import beside
from peftbench.estimate.sharding.units import units_of
from peftbench.estimate.training import estimate_training
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe import DType, ParallelismSpec, QuantizationSpec, TrainingSpec
from peftbench.memory import Part, Phase

UNTIED, TIED = find_model("8b"), find_model("llama-3.2-1b")
A100 = find_gpu("a100-80gb")
FULL, LORA_16 = TrainingSpec(), TrainingSpec(adapter=LORA)


def on(training: TrainingSpec, gpus: int, strategy: str = "fsdp") -> TrainingSpec:
    return replace(training, parallelism=ParallelismSpec(gpus=gpus, strategy=strategy))


def size(training: TrainingSpec, phase: Phase, *parts: Part, model: ModelSpec = UNTIED) -> int:
    profile = estimate_training(model, training, A100)
    return sum(c.bytes for c in profile.alive_in(phase) if c.part in parts)


# ── what is whole in which stretch, in units of layer, embeddings and head ──────────────────────────────────────────

LAST, FIRST, END = 0, 31, 32
"""Layers whose backward is done while the last and the first layer have theirs, and at the end."""


@pytest.mark.parametrize(
    ("unit", "backward", "above", "gathered", "reducing"),
    [
        ("gather", False, 0, (2, 1, 0), None),
        ("layer", False, 0, (2, 0, 0), None),
        ("gather", False, END, (1, 0, 2), None),
        ("head", False, 0, (0, 0, 2), None),
        ("loss", True, 0, (0, 0, 1), (0, 0, 0)),
        ("head", True, 0, (1, 0, 1), (0, 0, 0)),
        ("reduce", True, 0, (1, 0, 0), (0, 0, 1.25)),
        ("layer", True, LAST, (2, 0, 0), (0, 0, 1)),
        ("layer", True, 1, (2, 0, 0), (1, 0, 0)),
        ("layer", True, FIRST, (1, 1, 0), (1, 0, 0)),
        ("embedding", True, END, (0, 1, 0), (1, 0, 0)),
        ("reduce", True, END, (0, 0, 0), (0, 1.25, 0)),
    ],
)
def test_units_of_an_untied_model(
    unit: str, backward: bool, above: int, gathered: tuple[int, ...], reducing: tuple[float, ...] | None
) -> None:
    """In the head's backward and the first layer's the next unit is fetched; a reduced part is cast to float32."""
    training = on(FULL, 4)
    units = units_of(UNTIED, training, 0)
    sizes = beside(Stretch(unit, backward, above, ()), units, UNTIED, training)

    def counted(counts: tuple[float, ...]) -> float:
        return sum(count * each for count, each in zip(counts, units[:3], strict=True))

    assert sizes.get(Part.GATHERED, (0, 0, 0))[2] == counted(gathered)
    assert sizes.get(Part.BUCKETS, (0, 0, 0))[2] == counted(reducing or (0, 0, 0))


def test_tied_embeddings_are_whole_throughout_and_reduced_last() -> None:
    training = on(FULL, 4)
    units = units_of(TIED, training, 0)
    last = TIED.num_hidden_layers
    found = {
        place: beside(Stretch(*place, ()), units, TIED, training)
        for place in (("head", False, 0), ("layer", True, 0), ("layer", True, last - 1), ("reduce", True, last))
    }
    gathered = [sizes.get(Part.GATHERED, (0, 0, 0))[2] for sizes in found.values()]
    assert gathered == [units.head + units.layer, units.head + 2 * units.layer, units.head + units.layer, 0]
    assert Part.BUCKETS not in found["layer", True, 0], "nothing was reduced before the last layer"
    assert found["reduce", True, last][Part.BUCKETS][2] == units.head + units.head // 4


# ── types ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_weights_are_gathered_in_the_type_of_mixed_precision() -> None:
    half, single = (on(replace(FULL, dtype=dtype), 8) for dtype in (DType.BFLOAT16, DType.FLOAT32))
    assert size(half, Phase.FORWARD, Part.GATHERED) == size(single, Phase.FORWARD, Part.GATHERED)


def test_adapters_compute_without_autocast() -> None:
    """Accelerate has no autocast for FSDP2: adapters come as bfloat16, so their inputs are not cast to float32."""
    kept = replace(LORA_16, gradient_checkpointing=False)
    sharded, single = (size(t, Phase.BACKWARD, Part.ACTIVATIONS) for t in (on(kept, 4), kept))
    assert sharded < single
    plain = replace(kept, adapter=replace(LORA, dtype=DType.BFLOAT16), autocast=False)
    assert sharded == size(plain, Phase.BACKWARD, Part.ACTIVATIONS)


@pytest.mark.parametrize(("upcast", "times"), [(True, 2), (False, 1)])
def test_frozen_weights_rest_in_the_type_that_they_were_prepared_in(upcast: bool, times: int) -> None:
    def rest(quantization: QuantizationSpec) -> int:
        return size(on(replace(LORA_16, quantization=quantization), 4), Phase.STEP, Part.UNQUANTIZED)

    plain = replace(quantization_for(DType.BFLOAT16), upcast_norms=False, upcast_unquantized=False)
    assert rest(replace(plain, upcast_unquantized=upcast)) == times * rest(plain)


# ── DDP ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("training", "bytes_a_logit"),
    [(LORA_16, 12), (FULL, 10), (replace(FULL, gradient_checkpointing=False), 12)],
)
def test_ddp_copies_logits_where_it_looks_for_unused_parameters(training: TrainingSpec, bytes_a_logit: int) -> None:
    """In float32 log-probabilities, Accelerate's logits and the sink's; else the first two and the 16-bit logits."""
    logits = training.tokens * TIED.vocab_size
    found = size(on(training, 2, "ddp"), Phase.FORWARD, Part.LOGITS, model=TIED)
    assert found // logits == bytes_a_logit
