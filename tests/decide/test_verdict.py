"""Fits, tight, does not fit: the borders, and that the reason speaks of the same profile."""

from __future__ import annotations

from dataclasses import replace

import pytest

from peftbench.decide.verdict import Fit, judge
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.memory import Basis, Component, MemoryProfile, Part, Phase

RUNNING = frozenset({Phase.FORWARD, Phase.BACKWARD})
CONTEXT_BYTES = 300


def component(
    part: Part, expected: int, high: int | None = None, phases: frozenset[Phase] = RUNNING
) -> Component:
    return Component(part, expected, Basis.MODELLED, phases, "counted", 0, high or expected)


PROFILE = MemoryProfile((
    component(Part.WEIGHTS, 5000),
    component(Part.ACTIVATIONS, 3000, 3100, frozenset({Phase.BACKWARD})),
    component(Part.SLACK, 400, 1000),
    component(Part.CONTEXT, CONTEXT_BYTES, 500),
))  # fmt: skip


def card(usable: int) -> GpuSpec:
    return GpuSpec(
        name="x",
        product="x",
        memory_bytes=usable + CONTEXT_BYTES,
        memory_source="test",
        context_bytes=CONTEXT_BYTES,
    )


@pytest.mark.parametrize(
    ("usable", "fit"),
    [
        (9300, Fit.FITS),  # 5000 + 3100 + 1000 of the allocator, and 200 of the context's band
        (9299, Fit.TIGHT),
        (8000, Fit.TIGHT),  # the tensors
        (7999, Fit.DOES_NOT_FIT),
    ],
)
def test_borders(usable: int, fit: Fit) -> None:
    assert judge(PROFILE, card(usable)).fit is fit


def test_headroom_is_what_the_expected_reserved_peak_leaves() -> None:
    verdict = judge(PROFILE, card(9000))
    assert verdict.required_bytes == PROFILE.reserved_bytes == 8400
    assert verdict.headroom_bytes == 600


def test_the_context_is_not_counted_twice() -> None:
    tensors = MemoryProfile((component(Part.WEIGHTS, 1000), component(Part.CONTEXT, CONTEXT_BYTES)))
    assert judge(tensors, card(1000)).fit is Fit.FITS


def test_memory_of_others_is_not_usable() -> None:
    crowded = GpuSpec(
        name="x",
        product="x",
        memory_bytes=10_000,
        memory_source="test",
        context_bytes=CONTEXT_BYTES,
        in_use_bytes=2000,
    )
    assert judge(PROFILE, crowded).fit is Fit.DOES_NOT_FIT


def test_a_card_that_others_have_whole_has_no_memory_left_and_not_less() -> None:
    full = replace(card(10_000), in_use_bytes=20_000)
    assert full.usable_bytes == 0
    assert judge(PROFILE, full).fit is Fit.DOES_NOT_FIT


@pytest.mark.parametrize(
    ("usable", "words"),
    [
        (9300, "900 B to spare"),
        (8500, "100 B to spare, but up to 9.08 KiB within its band"),
        (8100, "300 B more than is usable"),
        (1000, "7.23 KiB more than is usable"),
    ],
)
def test_the_reason_names_peak_margin_and_largest_component(usable: int, words: str) -> None:
    reason = judge(PROFILE, card(usable)).reason
    assert reason.startswith("needs 8.20 KiB at its peak (backward pass), ")
    assert words in reason
    assert reason.endswith("the largest part is weights, 4.88 KiB (60 %): counted")


def test_the_spelling_of_fit_is_a_contract() -> None:
    assert [fit.value for fit in Fit] == ["fits", "tight", "does_not_fit"]
    assert Fit.DOES_NOT_FIT.text == "does not fit"
