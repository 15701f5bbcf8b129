"""`peftbench validate` on a CSV of published training speeds: factors between expected and measured steps."""

from __future__ import annotations

from peftbench.base.errors import PeftbenchError
from peftbench.cli.ask.format_option import show


def validate_speed(path: str, by: str, list_rows: bool, format_: str) -> None:
    """Predict every source, card or framework by constants fitted to the others, and print how far off that is."""
    from peftbench.check.speed.published_speed import read_speeds
    from peftbench.check.speed.throughput import GROUPS, LEFT_OUT, accuracies, leave_one_out, possible
    from peftbench.report.lists.accuracy import speed_rows_sheet, speed_sheet

    if by not in GROUPS:
        raise PeftbenchError(f"--by {by} is of memory.", f"Choose one of {', '.join(GROUPS)}.")
    records = read_speeds(path)
    kept = possible(records)
    left_out = by if by in LEFT_OUT else "source"
    rows = leave_one_out(kept, left_out)
    if not rows:
        raise PeftbenchError(f"{path} holds no row that can be predicted.", "Give a CSV like throughput.csv.")
    note = (
        f"Seconds of a step, predicted by constants fitted without the row's {left_out}. Factors are predicted / "
        "measured or its inverse, whichever is above 1; the bias is the geometric mean of predicted / measured. "
        f"{len(records) - len(kept)} impossible rows are left out: they would need over 90 % of the data sheet's rate."
    )
    show(speed_rows_sheet(rows, note) if list_rows else speed_sheet(accuracies(rows, by), by, note), format_)
