"""Prints how long `peftbench plan --model 8b --gpu t4` takes relative to `python -c "import click"`.

Run it with the Python that has peftbench installed: python tests/benchmarks/startup.py [PAIRS]. The goal is
a ratio of at most 2. The two commands take turns, and the median of the paired ratios is printed, because a
busy machine slows both. Bytecode is written once before: pip compiles what it installs, a checkout may not.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time

CLICK = [sys.executable, "-c", "import click"]
PLAN = [sys.executable, "-m", "peftbench", "plan", "--model", "8b", "--gpu", "t4"]


def seconds(command: list[str], environment: dict[str, str]) -> float:
    """Wall time of one run."""
    started = time.perf_counter()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def main(pairs: int) -> None:
    """Time the pairs and print medians and the ratio."""
    with tempfile.TemporaryDirectory() as bytecode:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = bytecode
        for command in (CLICK, PLAN):
            seconds(command, environment)
        times = [(seconds(CLICK, environment), seconds(PLAN, environment)) for _ in range(pairs)]
    click, plan = (statistics.median(t) for t in zip(*times, strict=True))
    ratio = statistics.median(plan / click for click, plan in times)
    print(f"import click {1000 * click:.0f} ms, plan {1000 * plan:.0f} ms, ratio {ratio:.2f} ({pairs} pairs)")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 31)
