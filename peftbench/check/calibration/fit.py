"""Fit the constants of a card from its run records: context, allocator slack, and what time depends on.

Constants that the records do not decide keep their priors, and say so. How well the rest do is judged on cases that
were left out of a fit of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median, median_low
from typing import NamedTuple

from peftbench.base.errors import CatalogError
from peftbench.check.calibration.runs import Run
from peftbench.check.calibration.time import fit_time
from peftbench.check.groups import factor_of, nine_of_ten
from peftbench.inputs.card.gpu import ENOUGH
from peftbench.records.calibration import MEMORY, STACK, Calibration, Constant, HeldOut, fingerprint, minor, stack_of
from peftbench.records.environment import Outcome
from peftbench.records.run import RunRecord

Constants = Mapping[str, Constant]
MOST_FITS = 40
"""A fit of thousands of runs takes a second."""


def calibrate(records: Iterable[RunRecord], made_at: str) -> Calibration:
    """The constants of the one card that the records are of.

    Raises CatalogError where none ended well, and where they are of several cards or stacks.
    """
    ended = _of_one_card([record for record in records if record.measurement.outcome is Outcome.OK])
    runs = [Run(record) for record in ended]
    place, card = ended[0].environment, runs[0].card
    timed = any(run.timed for run in runs)
    return Calibration(
        device=place.device, product=place.product, stack=stack_of(place.versions),
        driver=", ".join(sorted({r.environment.driver for r in ended if r.environment.driver})) or None,
        tensor_flops=card.tensor_flops if timed else None,
        memory_bandwidth=card.memory_bandwidth if timed else None,
        constants=fit_constants(runs), held_out=hold_out(runs),
        records=tuple(fingerprint(record) for record in ended), made_at=made_at,
    )  # fmt: skip


def _of_one_card(ended: Sequence[RunRecord]) -> Sequence[RunRecord]:
    if not ended:
        raise CatalogError("no run of these records ended well.", "Measure some: peftbench run SUITE")
    _check_one("cards", {record.environment.product for record in ended})
    for library in STACK:
        _check_one(f"versions of {library}", {minor(r.environment.versions.get(library, "none")) for r in ended})
    return ended


def _check_one(what: str, found: set[str]) -> None:
    if len(found) > 1:
        listed = ", ".join(sorted(found))
        raise CatalogError(
            f"these records are of several {what}: {listed}.", "Give those of one, as in results/<card>/<suite>.jsonl."
        )


def fit_constants(runs: Sequence[Run]) -> dict[str, Constant]:
    """Every constant that the records can tell of, decided or not."""
    memory = {
        "context_bytes": _median([run.context_bytes for run in runs], "bytes"),
        "slack_factor": _median([run.slack_factor for run in runs], "of the modelled slack"),
    }
    timed = [run.timed for run in runs if run.timed]
    return {**{name: found for name, found in memory.items() if found}, **fit_time(timed)}


def _median(seen: Iterable[float | None], unit: str) -> Constant | None:
    """The median withstands a run that others disturbed; None where nothing was seen."""
    values = [value for value in seen if value is not None]
    if not values:
        return None
    middle = median_low(values) if unit == "bytes" else median(values)
    return Constant(middle, min(values), max(values), unit, len(values))


# ── how good it is on what it was not fitted on ─────────────────────────────────────────────────────────────────────


class _Miss(NamedTuple):
    """Errors of one case by constants fitted without it, and by the priors."""

    time: float | None
    prior_time: float | None
    device: float | None
    prior_device: float | None


def hold_out(runs: Sequence[Run]) -> HeldOut:
    """Leave each case out in turn, fit the others, and predict it; of more than MOST_FITS cases several at once."""
    cases = list(dict.fromkeys(run.case for run in runs))
    timed = {run.case for run in runs if run.timed}
    folds = [frozenset(cases[first::MOST_FITS]) for first in range(min(len(cases), MOST_FITS))]
    misses = [miss for fold in folds if len(folds) > 1 for miss in _misses(fold, runs)]
    columns = zip(*misses, strict=True) if misses else ((), (), (), ())
    times, prior_times, devices, prior_devices = ([e for e in column if e is not None] for column in columns)
    return HeldOut(
        cases=len(cases), time_p90=nine_of_ten(times) if len(timed) >= ENOUGH else None,
        time_median=_middle(times), prior_time_median=_middle(prior_times),
        device_median=_middle(devices), prior_device_median=_middle(prior_devices),
    )  # fmt: skip


def _middle(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def _misses(fold: frozenset[str], runs: Sequence[Run]) -> list[_Miss]:
    constants = fit_constants([run for run in runs if run.case not in fold])
    return [
        _Miss(*(of(run, by) for of in (_time_factor, _device_error) for by in (constants, {})))
        for run in runs
        if run.case in fold
    ]


def _time_factor(run: Run, constants: Constants) -> float | None:
    if run.timed is None:
        return None
    expected_s = run.timed.step_s({name: found.value for name, found in constants.items() if name not in MEMORY})
    return factor_of(expected_s / run.timed.measured_s)


def _device_error(run: Run, constants: Constants) -> float | None:
    profile, measured_bytes = run.profile_with(constants), run.record.measurement.device_peak_bytes
    return abs(profile.device_bytes / measured_bytes - 1) if profile and measured_bytes else None
