"""What is predicted for the cases of a suite, before any is run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from peftbench.base.errors import SpecError
from peftbench.base.units import human_bytes
from peftbench.decide.suite.predict_case import device_of, predict_case, predict_largest
from peftbench.decide.verdict import judge
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.report.format.sheet import UNKNOWN, Table

if TYPE_CHECKING:
    from peftbench.decide.suite.cases import SuiteCase

HEADINGS = ("case", "method", "allocated", "device", "up to", "verdict")


def predictions_table(cases: Iterable[SuiteCase], gpu: GpuSpec | None) -> Table:
    """One row a case: tensors and device at the peak, the band's end, and whether that fits the card."""
    return Table("", HEADINGS, [_row(each, gpu) for each in cases], "llrrrl")


def _row(each: SuiteCase, gpu: GpuSpec | None) -> tuple[str, ...]:
    case = each.case
    try:
        profile = predict_case(case, gpu)
    except SpecError as error:
        return (case.id, case.recipe.method, *[UNKNOWN] * 3, f"no formula: {error.what}")
    card = device_of(case, gpu)
    judged = judge(profile, card).fit.text if card and not card.is_cpu else UNKNOWN
    if each.grows and (most := predict_largest(case, each.grows, gpu)):
        judged = most.text
    sizes = (profile.allocated_bytes, profile.device_bytes, profile.device_high_bytes)
    return (case.id, case.recipe.method, *map(human_bytes, sizes), judged)
