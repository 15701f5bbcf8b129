"""Estimates beside the runs of fitcheck-llm on one card, with the loop and the loading that its script has or others.

    python tests/benchmarks/card_rows.py t4_runs.csv
    python tests/benchmarks/card_rows.py t4_runs.csv --loop plain --device-map auto

The table has a row a figure, in MiB: allocated, reserved, and reserved with the CUDA context. The runs step in a
function and load on the CPU (scripts/measure.py of fitcheck-llm 0.3.1 on PyPI). Grouped heads under SDPA were pinned to
one kernel by hand, and are left out.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Iterator

from peftbench.base.units import MIB
from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.models import find_model
from peftbench.estimate.training import estimate_training
from peftbench.inputs.recipe import AdapterSpec, DType, QuantizationSpec, TrainingSpec
from peftbench.inputs.recipe.training import DEVICE_MAPS, LOOPS
from peftbench.memory import MemoryProfile

Row = dict[str, str]

METRICS = {
    "allocated": lambda profile: profile.allocated_bytes,
    "reserved": lambda profile: profile.reserved_bytes,
    "device": lambda profile: profile.device_bytes,
}
"""By the first word of the table's metric."""
NF4 = QuantizationSpec(double_quant=False, compute_dtype=DType.FLOAT16, upcast_unquantized=True)


def main() -> None:
    """Print a line for each metric, and with --rows one for each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("table")
    parser.add_argument("--loop", choices=LOOPS, default="function")
    parser.add_argument("--device-map", choices=DEVICE_MAPS, default="none")
    parser.add_argument("--rows", action="store_true")
    asked = parser.parse_args()
    with open(asked.table, encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if _has_known_kernel(row)]
    found = list(_errors(rows, asked.loop, asked.device_map))
    if asked.rows:
        print(*(f"{name} {error:+.2%}" for name, _, error in found), sep="\n")
    for metric in METRICS:
        print(f"{metric}: {_summary([error for _, of, error in found if of == metric])}")


def _errors(rows: list[Row], loop: str, device_map: str) -> Iterator[tuple[str, str, float]]:
    for row in rows:
        metric = row["metric"].partition("_")[0]
        predicted = METRICS[metric](_profile(row, loop, device_map))
        yield row["id"], metric, predicted / MIB / float(row["measured_value"]) - 1


def _has_known_kernel(row: Row) -> bool:
    return row["attn_impl"] == "eager" or "SmolLM2-1.7B" in row["model_hf_id"]


def _profile(row: Row, loop: str, device_map: str) -> MemoryProfile:
    model, card = find_model(row["model_hf_id"].replace("Qwen2.5-1.5B-Instruct", "Qwen2.5-1.5B")), row["gpu_model"]
    adapter = AdapterSpec(r=int(row["lora_rank"]), target_modules=tuple(row["target_modules"].split(",")))
    training = TrainingSpec(
        sequence_length=int(row["seq_len_max"]), micro_batch_size=int(row["micro_batch"]),
        gradient_checkpointing=row["grad_checkpointing"].startswith("true"), dtype=DType.FLOAT16, autocast=False,
        optimizer="adamw_torch", attention=row["attn_impl"].split()[0], loop=loop, device_map=device_map,
        adapter=adapter, quantization=NF4 if row["base_quant"] == "nf4" else None,
    )  # fmt: skip
    return estimate_training(model, training, find_gpu(card.lower()))


def _summary(errors: list[float]) -> str:
    sizes = sorted(map(abs, errors))
    at_p90 = sizes[int(0.9 * (len(sizes) - 1))]
    bias = statistics.mean(errors)
    median = statistics.median(sizes)
    return f"{len(sizes)} rows, median {median:.2%}, p90 {at_p90:.2%}, worst {sizes[-1]:.2%}, bias {bias:+.2%}"


if __name__ == "__main__":
    main()
