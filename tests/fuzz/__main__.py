"""The long run: `make fuzz`, or one input again: `make fuzz-one SEED=1 KIND=line NUMBER=77`."""

from __future__ import annotations

import argparse
import faulthandler
import os
import resource
import signal
import sys
import time

from fuzz.campaign import KINDS, case_of, numbered, run, told
from fuzz.case import Case
from fuzz.trial import try_case
from fuzz.world import no_children

MOST_MEMORY = 4 << 30
STUCK_S = 60
"""C code hears no alarm: then the process ends with the stack."""
EVERYTHING = 10**9


def main() -> int:
    """Print the faults, each once, after Ctrl-C too; the exit code says whether there were any."""
    asked = _asked()
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, resource.RLIM_INFINITY))
    os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
    if asked.only is not None:
        return _one(case_of(asked.seed, asked.only, asked.kind), asked.seed)
    began_s, tried, stopped = time.monotonic(), 0, False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    def before(case: Case) -> bool:
        nonlocal tried
        faulthandler.dump_traceback_later(STUCK_S, exit=True)
        if tried % 1000 == 0:
            print(
                f"{tried} inputs, {time.monotonic() - began_s:.0f} s, next {case.kind} {case.number}", file=sys.stderr
            )
        tried += 1
        return not stopped and time.monotonic() - began_s < 60 * asked.minutes

    signal.signal(signal.SIGINT, stop)
    found = run(numbered(asked.seed, asked.first, asked.count, asked.kind), asked.seed, before)
    faulthandler.cancel_dump_traceback_later()
    took = f"{tried} inputs from number {asked.first} in {time.monotonic() - began_s:.0f} s"
    print(f"seed {asked.seed}: {took}, {len(found)} faults")
    for each in sorted(found, key=lambda each: each.fault.where):
        print(f"\n{told(each, asked.seed)}")
    return int(bool(found))


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="default: the time")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--count", type=int, default=EVERYTHING, help="how many inputs")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--kind", choices=("", *KINDS), default="", help="one kind only")
    parser.add_argument("--only", type=int, help="the number of one input to try again")
    return parser.parse_args()


def _one(case: Case, seed: int) -> int:
    with no_children():
        faults = try_case(case, seed)
    print(case.text)
    for fault in faults:
        print(f"{fault.what} in {fault.where}: {fault.detail}")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
