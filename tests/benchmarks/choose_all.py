"""Prints how long `peftbench choose` takes over all cards, methods, counts and offers, start included, and its memory.

Run it with the Python that has peftbench installed: python tests/benchmarks/choose_all.py [PAIRS]. The goals: 1 s on
one core of an idle machine, and 100 MB. It takes turns with `python -c "import click"`, because a busy machine slows
both; bytecode is written once before.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

CLICK = [sys.executable, "-c", "import click"]
CHOOSE = [sys.executable, "-m", "peftbench", "choose", "--model", "8b", "--tokens", "50M"]


def seconds(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Wall time and time of the processor of one run."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(pairs: int) -> None:
    """Time the pairs and print medians, the ratio, and the largest resident set of all runs."""
    with tempfile.TemporaryDirectory() as bytecode:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = bytecode
        for command in (CLICK, CHOOSE):
            seconds(command, environment)
        times = [(seconds(CLICK, environment), seconds(CHOOSE, environment)) for _ in range(pairs)]
    click, wall, processor = (
        statistics.median(values) for values in zip(*((c[0], *chosen) for c, chosen in times), strict=True)
    )
    kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    ratio = statistics.median(chosen[0] / c[0] for c, chosen in times)
    print(f"import click {1000 * click:.0f} ms, choose {1000 * wall:.0f} ms, {1000 * processor:.0f} of the processor")
    print(f"ratio {ratio:.1f} ({pairs} pairs), ru_maxrss {kib / 1000:.0f} MB")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
