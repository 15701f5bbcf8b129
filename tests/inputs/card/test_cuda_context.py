"""The CUDA context: its constants against the samples that they are taken from, and those that they were not."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftbench.base.errors import SpecError
from peftbench.base.units import MIB
from peftbench.inputs.card.cuda_context import LARGE, LARGE_MIB, SMALL_MIB, context_band, context_bytes

SAMPLES_CSV = Path(__file__).parents[3] / "results" / "published" / "context.csv"
CAPABILITIES = st.sampled_from([None, (7, 5), (8, 0), (8, 9), (9, 0), (12, 0)])


class Sample(NamedTuple):
    """One process on one card."""

    card: str
    source: str
    multiprocessors: int
    capability: tuple[int, int]
    bytes: float

    @property
    def is_large(self) -> bool:
        """Its multiprocessors hold 2048 threads."""
        return self.capability in LARGE


def samples() -> list[Sample]:
    """Those of processes that load or train; a bare context has no kernels of PyTorch."""
    with SAMPLES_CSV.open(encoding="utf-8", newline="") as file:
        return [
            Sample(
                row["card"], row["source"], int(row["multiprocessors"]),
                tuple(map(int, row["compute_capability"].split("."))), float(row["mib"]) * MIB,
            )
            for row in csv.DictReader(file) if row["state"] != "bare"
        ]  # fmt: skip


SAMPLES = samples()


def each_mib(known: Iterable[Sample]) -> dict[bool, float]:
    """MiB a multiprocessor of the middle card of large ones (True) and of small ones (False)."""
    cards: dict[bool, dict[str, list[float]]] = {True: defaultdict(list), False: defaultdict(list)}
    for sample in known:
        cards[sample.is_large][sample.card].append(sample.bytes / MIB / sample.multiprocessors)
    return {large: median(map(median, of_card.values())) for large, of_card in cards.items()}


def held_out(field: str) -> list[float]:
    """The errors of each sample by constants that its own card or source had no part in."""
    errors = []
    for left_out in {getattr(sample, field) for sample in SAMPLES}:
        fitted = each_mib(sample for sample in SAMPLES if getattr(sample, field) != left_out)
        own = (sample for sample in SAMPLES if getattr(sample, field) == left_out)
        errors += [fitted[s.is_large] * s.multiprocessors * MIB / s.bytes - 1 for s in own]
    return errors


def test_the_constants_are_those_of_the_middle_cards():
    assert each_mib(SAMPLES) == {True: pytest.approx(LARGE_MIB, abs=0.05), False: pytest.approx(SMALL_MIB, abs=0.05)}


@pytest.mark.parametrize("field", ["card", "source"])
def test_they_hold_for_samples_that_they_were_not_taken_from(field):
    errors = [abs(error) for error in held_out(field)]
    assert median(errors) < 0.07 and max(errors) < 0.3


def test_every_sample_lies_in_its_band():
    for sample in SAMPLES:
        low, high = context_band(sample.multiprocessors, sample.capability)
        assert low <= sample.bytes <= high, sample


@given(st.none() | st.integers(0, 1000), CAPABILITIES)
def test_the_expected_size_lies_in_the_band(multiprocessors, capability):
    low, high = context_band(multiprocessors, capability)
    assert low <= context_bytes(multiprocessors, capability) <= high


@given(st.integers(34, 188), CAPABILITIES)
def test_an_unknown_card_has_the_widest_band(multiprocessors, capability):
    low, high = context_band(multiprocessors, capability)
    widest = context_band(None, capability)
    assert widest[0] <= low and high <= widest[1]


def test_a_negative_number_is_refused():
    with pytest.raises(SpecError):
        context_bytes(-1, None)
