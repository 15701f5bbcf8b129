"""The answer of `peftbench calibrate`: each constant, what decided it, and how good they are on cases left out."""

from __future__ import annotations

from peftbench.records.calibration import Calibration, Constant, value_text
from peftbench.report.format.table import Table


def constants_table(found: Calibration) -> Table:
    """One row a constant."""
    rows = [
        (name.removesuffix("_bytes").removesuffix("_s").replace("_", " "), value_text(name, one.value),
         f"{value_text(name, one.low)}–{value_text(name, one.high)}", _unit(one, found), _decided_by(one))
        for name, one in found.constants.items()
    ]  # fmt: skip
    return Table("", ("constant", "value", "range", "unit", "decided by"), rows, "lrlll")


def _unit(one: Constant, found: Calibration) -> str:
    """Sizes are written with theirs, and a share says of what."""
    if one.unit == "of tensor_flops" and found.tensor_flops:
        return f"of {found.tensor_flops / 10**12:g} TFLOP/s"
    return "" if one.unit == "bytes" else one.unit


def _decided_by(one: Constant) -> str:
    return f"{one.records} run{'s' if one.records != 1 else ''}" if one.fitted else "prior"


def constants_data(found: Calibration) -> list[dict[str, object]]:
    """The same for a program, values in the units of the file."""
    return [
        {"constant": name, "value": one.value, "low": one.low, "high": one.high, "unit": one.unit,
         "records": one.records, "fitted": one.fitted}
        for name, one in found.constants.items()
    ]  # fmt: skip


def note(found: Calibration) -> str:
    """On what, how good, and how good the priors are on the same cases."""
    held = found.held_out
    times = f"time ×{held.prior_time_median:.2f}" if held.prior_time_median else ""
    memory = f"device peak {held.prior_device_median:.1%}" if held.prior_device_median is not None else ""
    priors = ", ".join(filter(None, (times, memory)))
    text = found.text[0].upper() + found.text[1:]
    return f"{text} The priors on the same cases: {priors}." if priors else text
