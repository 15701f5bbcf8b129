"""How evenly the sampler reads, and what it costs: run by hand, prints gaps and a ratio with its interval.

    python tests/benchmarks/sampling.py

A child trains a small network without end and counts its steps; in rounds of shuffled order this process samples it
every 10 ms, or does not. Without a GPU the reader is that of the child's resident set, which reads more than NVML does.
"""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import time

from peftbench.measure.device.host_memory import ProcessGroup
from peftbench.measure.device.sampler import PERIOD_S, Sampler

ROUNDS, ROUND_S = 30, 1.0
TRAINING = """
import sys, threading, torch
torch.set_num_threads(1)
model = torch.nn.Sequential(*(torch.nn.Linear(256, 256) for _ in range(8)))
optimizer, steps = torch.optim.AdamW(model.parameters()), 0
def answer():
    for _ in sys.stdin: print(steps, flush=True)
threading.Thread(target=answer, daemon=True).start()
while True:
    model(torch.ones(64, 256)).sum().backward(); optimizer.step(); optimizer.zero_grad(); steps += 1
"""


def main() -> None:
    """Print what was seen."""
    child = subprocess.Popen([sys.executable, "-c", TRAINING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                             start_new_session=True)  # fmt: skip
    try:
        steps(child)
        time.sleep(2.0)
        ratios, gaps = rounds(child)
    finally:
        child.kill()
    print(f"gaps at {PERIOD_S * 1e3:.0f} ms: p50 {gaps.p50_s * 1e3:.2f}, p95 {gaps.p95_s * 1e3:.2f}, "
          f"p99 {gaps.p99_s * 1e3:.2f}, longest {gaps.longest_s * 1e3:.2f} ms")  # fmt: skip
    low, middle, high = interval(ratios)
    print(f"time of a step, sampled / not: {middle:.4f} [{low:.4f}, {high:.4f}] over {len(ratios)} pairs")


def rounds(child):
    """Ratios of step time of each pair, and the gaps of the last sampled round."""
    ratios, gaps = [], None
    for _ in range(ROUNDS):
        rate = {}
        for sampled in random.sample((True, False), 2):
            if sampled:
                with Sampler(ProcessGroup(child.pid).read) as sampler:
                    rate[sampled] = measure(child)
                gaps = sampler.jitter
            else:
                rate[sampled] = measure(child)
        ratios.append(rate[False] / rate[True])
    return ratios, gaps


def measure(child) -> float:
    """Steps a second."""
    began_s, before = time.perf_counter(), steps(child)
    time.sleep(ROUND_S)
    return (steps(child) - before) / (time.perf_counter() - began_s)


def steps(child) -> int:
    child.stdin.write("\n")
    child.stdin.flush()
    return int(child.stdout.readline())


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """The median, in a bootstrap interval of 95 %."""
    chance = random.Random(0)
    medians = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(2000))
    return medians[50], statistics.median(ratios), medians[1949]


if __name__ == "__main__":
    main()
