"""Runs as tables and in a few lines: what each took beside what was predicted, and predictions before any is run."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from peftbench.base.errors import SpecError
from peftbench.base.units import human_bytes
from peftbench.base.visible import one_line
from peftbench.check.runs.comparison import Comparison
from peftbench.decide.suite.predict_case import device_of, predict_case, predict_largest
from peftbench.decide.verdict import Fit, Verdict, judge
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.records.environment import Outcome
from peftbench.report.format.sheet import UNKNOWN, Column, Table, tabled
from peftbench.report.runs.rows import step_median_s

if TYPE_CHECKING:
    from peftbench.decide.plan.largest import Largest
    from peftbench.decide.suite.cases import SuiteCase
    from peftbench.inputs.case import Case

Group = tuple[Comparison, ...]
"""Runs of one suite on one device; never empty."""

SIZES = ("allocated", "reserved", "device")
NAMED = 5
"""Devices or versions that a title has room for."""
MESSAGE = 60
"""Characters of an error that a cell has room for."""


def grouped(comparisons: Iterable[Comparison]) -> list[Group]:
    """Runs of one device and suite belong together, wherever in the files they are."""
    found: dict[tuple[str, str | None, str], list[Comparison]] = {}
    for comparison in comparisons:
        place = comparison.record.environment
        found.setdefault((place.product, place.uuid, comparison.record.suite), []).append(comparison)
    return [tuple(group) for group in found.values()]


def on_card(group: Group) -> bool:
    """Whether the device is a GPU."""
    return group[0].record.environment.device == "cuda"


def group_title(group: Group) -> str:
    """ "methods-1b on NVIDIA L4 · driver 570.1 · torch 2.13.0 · 2026-11-01 to 2026-11-03"."""
    places = [comparison.record.environment for comparison in group]
    drivers, torches = (few(texts) for texts in ((place.driver for place in places),
                                                   (place.versions.get("torch") for place in places)))  # fmt: skip
    days = sorted(place.started_at[:10] for place in places)
    first_to_last = " to ".join(dict.fromkeys((days[0], days[-1])))
    driver = f"driver {drivers}" if drivers else f"{places[0].threads} thread{'s' * (places[0].threads > 1)}"
    torch = f"torch {torches}" if torches else ""
    parts = (f"{group[0].record.suite} on {places[0].product}", driver, torch, first_to_last)
    return one_line(" · ".join(part for part in parts if part))


def group_table(group: Group, with_reasons: bool = False) -> Table:
    """A row a run; `with_reasons` where there is room to say why some have no prediction.

    What a run had reached that did not end well is marked as a lower bound. A CPU has a process and no device memory.
    """
    columns = (
        Column("case", lambda each: one_line(each.record.case.id)),
        Column("allocated", lambda each: _reached(each, each.measured.allocated_bytes), side="r"),
        Column("predicted", lambda each: each.predicted.allocated_bytes, human_bytes, "r"),
        Column("error", lambda each: each.errors.allocated, "{:+.1%}".format, "r"),
        Column("device", lambda each: _reached(each, each.record.measurement.device_peak_bytes), side="r")
        if on_card(group) else
        Column("process", lambda each: _reached(each, each.record.measurement.process_peak_bytes), side="r"),
        Column("s/step", lambda each: step_median_s(each.record.measurement), "{:.3f}".format, "r"),
        Column("outcome", partial(_outcome, with_reasons)),
    )  # fmt: skip
    bad = (place for place, each in enumerate(group) if each.record.measurement.outcome is not Outcome.OK)
    return tabled(columns, group, group_title(group), bad)


def _reached(comparison: Comparison, size: int | None) -> str | None:
    least = "" if comparison.record.measurement.outcome is Outcome.OK else "≥"
    return None if size is None else least + human_bytes(size)


def few(texts: Iterable[str | None]) -> str:
    """Each text once; of many the first."""
    found = list(dict.fromkeys(text for text in texts if text))
    return ", ".join(found[:NAMED]) + (f" and {len(found) - NAMED:,} more" if len(found) > NAMED else "")


def _outcome(with_reasons: bool, comparison: Comparison) -> str:
    found, reason = comparison.record.measurement, ""
    if with_reasons and comparison.note:
        reason = f"; not predicted: {one_line(comparison.note)}"
    if found.outcome is Outcome.OK:
        return (f"ok, {found.alloc_retries} retries" if found.alloc_retries else "ok") + reason
    message = one_line(found.message)
    if not message or found.outcome is Outcome.OOM:
        return f"{found.outcome}{reason}"
    return f"{found.outcome}: {message[:MESSAGE]}{'…' if len(message) > MESSAGE else ''}{reason}"


# ── a few lines ─────────────────────────────────────────────────────────────────────────────────────────────────────


def described(comparison: Comparison) -> str:
    """One run as the callback prints it when training ends: each measured size with the predicted one and the error."""
    recipe = comparison.record.case.recipe
    head = f"peftbench: {recipe.method} of {comparison.record.case.model} on {comparison.record.environment.product}"
    columns = zip(SIZES, comparison.measured, comparison.predicted, comparison.errors, strict=True)
    sizes = [_size(name, seen, said, error) for name, seen, said, error in columns if seen is not None]
    note = [f"no prediction: {comparison.note}"] if comparison.note else []
    return "\n  ".join((head, *sizes, *note))


def _size(name: str, measured: int, predicted: int | None, error: float | None) -> str:
    said = f", predicted {human_bytes(predicted)}" if predicted is not None else ""
    off = f" ({error:+.1%})" if error is not None else ""
    return f"{name} {human_bytes(measured)}{said}{off}"


# ── before any is run ───────────────────────────────────────────────────────────────────────────────────────────────

PREDICTIONS = ("case", "method", "allocated", "device", "up to", "verdict")


def predictions_table(cases: Iterable[SuiteCase], gpu: GpuSpec | None) -> Table:
    """One row a case: tensors and device at the peak, the band's end, and whether that fits the card."""
    return Table("", PREDICTIONS, [_row(each, gpu) for each in cases], "llrrrl")


def predictions_line(cases: Iterable[SuiteCase], gpu: GpuSpec | None) -> str:
    """The word, the need and what is left of the case that leaves the least; empty where none is judged on a card."""
    judged = [(_verdict(each.case, gpu), each.case) for each in cases]
    found = [(verdict, case) for verdict, case in judged if verdict]
    if not found:
        return ""
    fitting = sum(verdict.fit is Fit.FITS for verdict, _ in found)
    verdict, case = max(found, key=lambda each: (each[0].fit.rank, -each[0].headroom_bytes))
    return verdict.line(f"{case.id} ({case.recipe.method})") + f"; {fitting} of {len(found)} cases fit"


def _verdict(case: Case, gpu: GpuSpec | None) -> Verdict | None:
    """None without a card, on a CPU, and where there is no formula."""
    card = device_of(case, gpu)
    try:
        return judge(predict_case(case, gpu), card) if card and not card.is_cpu else None
    except SpecError:
        return None


def largest_text(largest: Largest) -> str:
    """How far an option can be raised, in words."""
    expected = f", expected {largest.expected}" if largest.expected > largest.fits else ""
    return f"{largest.fits} fits{expected}"


def _row(each: SuiteCase, gpu: GpuSpec | None) -> tuple[str, ...]:
    case = each.case
    try:
        profile = predict_case(case, gpu)
    except SpecError as error:
        return (case.id, case.recipe.method, *[UNKNOWN] * 3, f"no formula: {error.what}")
    verdict = _verdict(case, gpu)
    judged = verdict.fit.text if verdict else UNKNOWN
    if each.grows and (most := predict_largest(case, each.grows, gpu)):
        judged = largest_text(most)
    sizes = (profile.allocated_bytes, profile.device_bytes, profile.device_high_bytes)
    return (case.id, case.recipe.method, *map(human_bytes, sizes), judged)
