"""How often equal things are found equal: run by hand, prints the null pairs of 20 repeats and the ratio that matters.

    python tests/benchmarks/null_check.py [repeats]

Each repeat builds base, dynamic and merged variants of the 40M Llama of suite adapters-latency-smoke anew, and shuffles
its rounds by another seed. A null pair has a true ratio of 1: its 95 % bootstrap interval should hold 1 in about 19 of
20 repeats, and the check itself, whose intervals are wider, should pass in all 20 in five of six runs of this file.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import torch
from transformers import logging

from peftbench.decide.suite.variants import comparison_of
from peftbench.inputs.suite import find_suite, read_suite
from peftbench.measure.latency.compare import request_of
from peftbench.measure.latency.pairs import TWIN, decode, narrow_enough, null_checks, ratio
from peftbench.measure.latency.rounds import run_rounds
from peftbench.measure.latency.variants import build_variants

VARIANTS = ("base", "dynamic", "merged")
PAIRS = ((TWIN, "base"), ("merged", "base"))


def main() -> None:
    """Print a line for each repeat, and the counts."""
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    asked = comparison_of(read_suite(find_suite("adapters-latency-smoke")))
    asked = replace(asked, variants=tuple(each for each in asked.variants if each.name in VARIANTS))
    passed, narrow, held = 0, 0, dict.fromkeys(PAIRS, 0)
    for seed in range(repeats):
        timings = repeat(replace(asked, seed=seed))
        checks, effect = null_checks(asked.variants, timings), ratio(timings, "dynamic", "merged", decode)
        passed += not any(check.biased for check in checks)
        narrow += effect.half_width <= asked.interval
        for pair in PAIRS:
            held[pair] += not ratio(timings, *pair, decode).excludes(1.0)
        print(f"{seed:2}  {len(timings[TWIN])} rounds  dynamic / merged {told(effect)} ±{effect.half_width:.1%}")
        print(*(f"      {check}" for check in checks), sep="\n", flush=True)
    print(f"null check passed in {passed} of {repeats}; dynamic / merged within ±{asked.interval:.0%} in {narrow}")
    for pair, count in held.items():
        print(f"  the 95 % interval of {' / '.join(pair)} in decode holds 1 in {count}")


def repeat(case):
    """The timings of one comparison."""
    built = list(build_variants(case))
    models = {each.variant.name: each.model for each in built} | {TWIN: built[0].model}
    return run_rounds(
        models, request_of(case), case.seed, case.rounds, case.most_rounds,
        narrow_enough(case.variants, case.interval), lambda share: None,
    )  # fmt: skip


def told(interval) -> str:
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


if __name__ == "__main__":
    main()
