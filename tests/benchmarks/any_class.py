"""Dry-run the smallest checkpoint of each model_type in a list of configs: python tests/benchmarks/any_class.py FILE.

FILE is a JSON list of {"id", "kind", "model_type", "transformers_class", "config", "num_parameters": {"built": N}}.
Each is trained by LoRA on a short sequence, its class among `architectures`. Printed: kind, type, id, seconds, whether
the parameters are transformers' own, and why where it fails. Options: --kind WORD, --types A,B.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from peftbench.base.errors import PeftbenchError
from peftbench.dryrun.runner import DryRunner
from peftbench.dryrun.workload import Workload
from peftbench.inputs.recipe import AdapterSpec, TrainingSpec


def main() -> None:
    """Print a line for each type, and how many are right."""
    asked = _arguments()
    rows = [row for row in _smallest(asked.file) if asked.kind in row["kind"]]
    if asked.types:
        rows = [row for row in rows if row["model_type"] in asked.types.split(",")]
    with DryRunner() as runner:
        right = sum([_line(runner, row, asked) for row in rows])
    print(f"{right} of {len(rows)} types run with transformers' own number of parameters")


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file")
    parser.add_argument("--kind", default="")
    parser.add_argument("--types", default="")
    parser.add_argument("--sequence-length", type=int, default=64)
    parser.add_argument("--method", choices=("lora", "full"), default="lora")
    return parser.parse_args()


def _smallest(path: str) -> list[dict[str, Any]]:
    """One row a kind and type, by kind."""
    with open(path, encoding="utf-8") as file:
        rows = json.load(file)
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row["num_parameters"]["built"]):
        found.setdefault((row["kind"], row["model_type"]), row)
    return [found[key] for key in sorted(found)]


def _line(runner: DryRunner, row: dict[str, Any], asked: Any) -> bool:
    began_s, built, count = time.monotonic(), row["num_parameters"]["built"], 0
    try:
        count = runner.run(_workload(row, asked)).facts["num_parameters"]
        found = "ok" if count == built else f"{count:,} parameters instead of {built:,}"
    except PeftbenchError as error:
        found = f"{error.what} {error.hint}"
    seconds = time.monotonic() - began_s
    print(f"{row['kind']:22} {row['model_type']:20} {row['id']:45} {seconds:5.1f} s  {found}", flush=True)
    return count == built


def _workload(row: dict[str, Any], asked: Any) -> Workload:
    adapter = AdapterSpec(r=8, target_modules=("all-linear",)) if asked.method == "lora" else None
    recipe = TrainingSpec(sequence_length=asked.sequence_length, micro_batch_size=2, adapter=adapter)
    config = {"architectures": [row["transformers_class"]], **row["config"]}
    return Workload(config=json.dumps(config), recipe=recipe)


if __name__ == "__main__":
    main()
