"""Fits, tight, risky, does not fit: the borders, what is said of them, and what a setting without a price may turn."""

from __future__ import annotations

from dataclasses import replace

import pytest

from peftbench.base.units import MIB
from peftbench.decide.verdict import PROMISES, Effect, Fit, Unpriced, judge, widened
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.memory import Basis, Component, MemoryProfile, Part, Phase

RUNNING = frozenset({Phase.FORWARD, Phase.BACKWARD})
CONTEXT_BYTES = 300 * MIB


def component(
    part: Part, expected: int, high: int | None = None, phases: frozenset[Phase] = RUNNING
) -> Component:
    """Sizes in MiB."""
    return Component(part, expected * MIB, Basis.MODELLED, phases, "counted", 0, (high or expected) * MIB)


PROFILE = MemoryProfile((
    component(Part.WEIGHTS, 5000),
    component(Part.ACTIVATIONS, 3000, 3100, frozenset({Phase.BACKWARD})),
    component(Part.SLACK, 400, 1000),
    component(Part.CONTEXT, 300, 500),
))  # fmt: skip


def card(usable: int) -> GpuSpec:
    """With so many MiB for the allocator."""
    return GpuSpec(
        name="x",
        product="x",
        memory_bytes=usable * MIB + CONTEXT_BYTES,
        memory_source="test",
        context_bytes=CONTEXT_BYTES,
    )


@pytest.mark.parametrize(
    ("usable", "fit"),
    [
        (9300, Fit.FITS),  # 5000 + 3100 + 1000 of the allocator, and 200 of the context's band
        (9299, Fit.TIGHT),
        (8400, Fit.TIGHT),  # what is expected
        (8399, Fit.RISKY),
        (8000, Fit.RISKY),  # the tensors
        (7999, Fit.DOES_NOT_FIT),
    ],
)
def test_borders(usable: int, fit: Fit) -> None:
    assert judge(PROFILE, card(usable)).fit is fit


def test_headroom_is_what_the_expected_reserved_peak_leaves() -> None:
    verdict = judge(PROFILE, card(9000))
    assert verdict.required_bytes == PROFILE.reserved_bytes == 8400 * MIB
    assert verdict.headroom_bytes == 600 * MIB


def test_the_context_is_not_counted_twice() -> None:
    tensors = MemoryProfile((component(Part.WEIGHTS, 1000), component(Part.CONTEXT, 300)))
    assert judge(tensors, card(1000)).fit is Fit.FITS


def test_memory_of_others_is_not_usable() -> None:
    crowded = GpuSpec(
        name="x",
        product="x",
        memory_bytes=10_000 * MIB,
        memory_source="test",
        context_bytes=CONTEXT_BYTES,
        in_use_bytes=2000 * MIB,
    )
    assert judge(PROFILE, crowded).fit is Fit.DOES_NOT_FIT


def test_a_card_that_others_have_whole_has_no_memory_left_and_not_less() -> None:
    full = replace(card(10_000), in_use_bytes=20_000 * MIB)
    assert full.usable_bytes == 0
    assert judge(PROFILE, full).fit is Fit.DOES_NOT_FIT


@pytest.mark.parametrize(
    ("usable", "line"),
    [
        (9300, "fits: it needs 8.50 of 9.38 GiB, 0.88 left"),
        (8500, "tight: it needs 8.50 of 8.59 GiB, 0.10 left, but up to 9.38 within its band"),
        (8100, "risky: it needs 8.50 of 8.20 GiB, 0.29 too much"),
        (8399, "risky: it needs 8.50 of 8.50 GiB, 1.00 MiB too much"),
        (1000, "does not fit: it needs 8.50 of 1.27 GiB, 7.23 too much"),
    ],
)
def test_the_first_line_is_the_word_the_need_and_what_is_left(usable: int, line: str) -> None:
    assert judge(PROFILE, card(usable)).line("it") == line


def test_the_reason_names_the_largest_component() -> None:
    reason = judge(PROFILE, card(9300)).reason
    assert reason.startswith("needs 8.50 of 9.38 GiB, 0.88 left; ")
    assert reason.endswith("the largest part is weights, 4.88 GiB (57 %) in the backward pass: counted")


def test_the_spelling_of_fit_is_a_contract() -> None:
    assert [fit.value for fit in Fit] == ["fits", "tight", "risky", "does_not_fit"]
    assert Fit.DOES_NOT_FIT.text == "does not fit"


def test_every_word_promises_how_often_a_run_runs_out() -> None:
    shares = ("at most 1 %", "at most 20 %", "20 to 90 %", "at least 90 %")
    assert [PROMISES[fit].text for fit in Fit] == [f"{share} of such runs" for share in shares]


VERDICTS = [judge(PROFILE, card(usable)) for usable in (9300, 8400, 8000, 7000)]


@pytest.mark.parametrize(
    ("effect", "most", "turned"),
    [
        (Effect.MORE, None, {Fit.FITS, Fit.TIGHT}),
        (Effect.MORE, 100, set()),  # that is in the band
        (Effect.LESS, None, {Fit.RISKY, Fit.DOES_NOT_FIT}),
        (Effect.LESS, 500, {Fit.RISKY}),
        (Effect.EITHER, None, set(Fit)),
    ],
)
def test_what_a_setting_without_a_price_may_turn(effect: Effect, most: int | None, turned: set[Fit]) -> None:
    unpriced = Unpriced("it", effect, most and most * MIB)
    assert {verdict.fit for verdict in VERDICTS if unpriced.may_turn(verdict)} == turned


def test_what_may_be_added_widens_the_band() -> None:
    fits, less, more = VERDICTS[0], Unpriced("it", Effect.LESS, MIB), Unpriced("it", Effect.MORE, MIB)
    assert widened(fits, [less]) == fits
    assert widened(fits, [more]).fit is Fit.TIGHT and widened(fits, [more]).high_bytes == fits.high_bytes + MIB
    assert [widened(verdict, [more]).fit for verdict in VERDICTS[1:]] == [verdict.fit for verdict in VERDICTS[1:]]


@pytest.mark.parametrize(
    ("usable", "reserved", "device_high"),
    [
        (9500, 8400, 9600),  # more than the band needs
        (8200, 8200, 8627.5),  # the allocator gives 200 of its 400 back; an older driver leaves 1.5 % more
        (8000, 8000, 8424.5),  # all of it
        (7999, 8400, 9600),  # the tensors do not fit: what it would take
    ],
)
def test_a_full_card_shows_what_there_is_and_its_verdict_goes_by_the_need(
    usable: int, reserved: int, device_high: float
) -> None:
    profile = replace(PROFILE, usable_bytes=usable * MIB)
    assert (profile.reserved_bytes, profile.device_high_bytes) == (reserved * MIB, device_high * MIB)
    assert profile.device_bytes == reserved * MIB + CONTEXT_BYTES
    assert profile.needed_bytes == PROFILE.device_bytes == 8700 * MIB
    assert judge(profile, card(usable)) == judge(PROFILE, card(usable))
