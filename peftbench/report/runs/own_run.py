"""One run beside its prediction, in two lines: what the callback prints when training ends."""

from __future__ import annotations

from peftbench.base.units import human_bytes
from peftbench.check.runs.comparison import Comparison

NAMES = ("allocated", "reserved", "device")


def described(comparison: Comparison) -> str:
    """Each size that was measured, with what was predicted and the error."""
    recipe = comparison.record.case.recipe
    head = f"peftbench: {recipe.method} of {comparison.record.case.model} on {comparison.record.environment.product}"
    columns = zip(NAMES, comparison.measured, comparison.predicted, comparison.errors, strict=True)
    sizes = [_size(name, seen, said, error) for name, seen, said, error in columns if seen is not None]
    note = [f"no prediction: {comparison.note}"] if comparison.note else []
    return "\n  ".join((head, *sizes, *note))


def _size(name: str, measured: int, predicted: int | None, error: float | None) -> str:
    said = f", predicted {human_bytes(predicted)}" if predicted is not None else ""
    off = f" ({error:+.1%})" if error is not None else ""
    return f"{name} {human_bytes(measured)}{said}{off}"
