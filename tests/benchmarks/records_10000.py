"""Prints what `report` and `validate` of many records take: seconds, their ratio to json.loads alone, and memory.

    python tests/benchmarks/records_10000.py [--records 10000] [--varied]

The file is made of the smoke runs that ship, each with an id of its own: 119 MB of 10,000; --varied gives each one of
1,000 sequence lengths as well, so that as many estimates are made. Goals: 15 s and 300 MB, a page in 25 s and 500 MB
with at most 20 MB, on a quiet machine; a busy one slows json.loads as much.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHIPPED = Path(__file__).parents[2] / "results" / "cpu" / "smoke.jsonl"
LOADS = "import json, sys\nfor line in open(sys.argv[1]): json.loads(line)"
VERBS = (
    ("report", "{file}"), ("validate", "{file}"), ("report", "{file}", "--format", "html", "-o", "{page}"),
    ("report", "{file}", "--format", "csv"), ("report", "{file}", "--format", "json"), ("validate", "{file}", "--rows"),
)  # fmt: skip


def write_records(path: Path, number: int, varied: bool) -> None:
    """As `peftbench run` writes them."""
    shipped = [json.loads(line) for line in SHIPPED.read_text().splitlines()]
    with path.open("w") as file:
        for place in range(number):
            record = shipped[place % len(shipped)]
            record["case"]["id"] = f"run-{place}"
            if varied:
                record["case"]["recipe"]["sequence_length"] = 64 + place % 1000
            file.write(json.dumps(record, sort_keys=True) + "\n")


def measured(command: list[str], answer: Path) -> tuple[float, float, int]:
    """Wall seconds, seconds of the processor, and the most memory in bytes of one child."""
    started = time.perf_counter()
    with answer.open("wb") as out:
        child = subprocess.Popen(command, stdout=out, env={**os.environ, "PEFTBENCH_CALIBRATION": "none"})
        _, status, used = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    unit = 1 if sys.platform == "darwin" else 1024
    return time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss * unit


def main(number: int, varied: bool) -> None:
    """One line a verb."""
    with tempfile.TemporaryDirectory() as folder:
        file, page, answer = (Path(folder) / name for name in ("runs.jsonl", "page.html", "answer"))
        write_records(file, number, varied)
        alone_s, _, _ = measured([sys.executable, "-c", LOADS, str(file)], answer)
        print(f"{number:,} records, {file.stat().st_size / 1e6:.0f} MB, json.loads {alone_s:.1f} s")
        for verb in VERBS:
            arguments = [word.format(file=file, page=page) for word in verb]
            wall_s, cpu_s, most = measured([sys.executable, "-m", "peftbench", *arguments], answer)
            size = max(path.stat().st_size for path in (page, answer) if path.exists())
            page.unlink(missing_ok=True)
            label = " ".join((verb[0], *verb[2:4]))
            print(f"{label:22} {wall_s:6.1f} s  {cpu_s:6.1f} s of CPU  {wall_s / alone_s:5.1f} x json.loads  "
                  f"{most / 1e6:5.0f} MB  answer {size / 1e6:5.1f} MB")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--varied", action="store_true")
    given = parser.parse_args()
    main(given.records, given.varied)
