"""How wide the bands of published figures are, and how wide they would be if the other sources' errors said it.

    python tests/benchmarks/bands.py results/published

For each metric beyond allocated, on one GPU and on several: the share of rows in today's band and its median width,
then the same for a band of nine tenths of the errors of all other sources. A source is a repository's runs of one
method.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from peftbench.check.memory.published import record_from_json
from peftbench.check.memory.validation import ValidatedRow, by_formula, figure_of, row_of

TAIL = 0.05
"""The share of the others' errors beyond either end."""


class Row(NamedTuple):
    """One figure, and who measured it."""

    source: str
    row: ValidatedRow

    @property
    def ratio(self) -> float:
        """What was measured, as a share of what is predicted."""
        return self.row.record.measured_bytes / self.row.predicted_bytes


def main() -> None:
    """Print two lines a group."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    for name, rows in sorted(_groups(parser.parse_args().folder).items()):
        today = [(each.row.low_bytes / each.row.predicted_bytes, each.row.high_bytes / each.row.predicted_bytes)
                 for each in rows]  # fmt: skip
        print(f"{name}: {len(rows)} rows, today {_summary(rows, today)}")
        print(f"{'':{len(name)}}  held out by source {_summary(rows, [_band(each.source, rows) for each in rows])}")


def _groups(folder: Path) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = record_from_json(json.loads(line))
            if record.metric != "allocated_max":
                row = row_of(figure_of(record), by_formula(record))
                gpus = "one GPU" if record.training.parallelism.gpus == 1 else "several GPUs"
                found[f"{record.metric}, {gpus}"].append(Row(f"{record.repository} {record.training.method}", row))
    return found


def _band(source: str, rows: list[Row]) -> tuple[float, float]:
    """What the rows of other sources say, as shares of a prediction."""
    others = sorted(each.ratio for each in rows if each.source != source)
    last = len(others) - 1
    return min(others[round(TAIL * last)], 1.0), max(others[round((1 - TAIL) * last)], 1.0)


def _summary(rows: list[Row], bands: list[tuple[float, float]]) -> str:
    inside = statistics.mean(low <= each.ratio <= high for each, (low, high) in zip(rows, bands, strict=True))
    width = statistics.median(high - low for low, high in bands)
    return f"{inside:.0%} in band, median width {width:.1%}"


if __name__ == "__main__":
    main()
