"""The estimate against the dry run on several GPUs: every recipe of tests/support/oracle/several_recipes.py.

    python tests/benchmarks/several_gpus.py [WORD]     # only recipes whose name has it

Prints the errors of allocated and reserved memory, then median, 90th percentile and worst, and how many dry runs
reserve what the estimate's band allows: of all, and of each strategy.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from oracle.several_recipes import RECIPES, Compared, compare

from peftbench.dryrun.session import DryRunSession
from peftbench.libraries.refusal import Refused


def main() -> None:
    """Compare them one after another; what the libraries refuse is said."""
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    all_found: dict[str, list[Compared]] = {}
    with DryRunSession() as session:
        for recipe in RECIPES:
            if word not in str(recipe):
                continue
            try:
                found = compare(session, recipe)
            except Refused as error:
                print(f"refused: {recipe}: {error.what}", flush=True)
                continue
            all_found.setdefault(recipe[1], []).append(found)
            print(f"{found.error:+8.2%} {found.reserved_error:+8.2%}  {found.name}", flush=True)
    for strategy, some in {"all": [one for each in all_found.values() for one in each], **all_found}.items():
        print(summary(f"{strategy}, allocated", [one.error for one in some]))
        within = sum(one.in_band for one in some)
        print(summary(f"{strategy}, reserved", [one.reserved_error for one in some]) + f", {within} in band")


def summary(name: str, errors: list[float]) -> str:
    """One line of figures, without signs."""
    sizes = sorted(map(abs, errors))
    p90 = sizes[int(0.9 * (len(sizes) - 1))]
    return f"{name}: {len(sizes)} recipes, median {statistics.median(sizes):.2%}, p90 {p90:.2%}, worst {sizes[-1]:.2%}"


if __name__ == "__main__":
    main()
