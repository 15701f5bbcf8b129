"""The known cards: reads gpus.csv and finds a card by whatever people call it.

Three sizes of a card, never mixed: what the box says (`nominal_gb`), what nvidia-smi shows (`smi_total_mib`),
and what torch sees (`memory_mib_torch`): the smallest, and the only one a plan may use. Where several totals
were measured on Linux the lowest is kept, because newer drivers hold more back. Where none was, it is derived
and marked so:

* smi total - the widest gap between smi and torch measured on Linux in the card's class. GeForce: 515 MiB
  (RTX 5090). Workstation and inference cards with GDDR memory: 643 MiB (RTX 6000 Ada). Cards with HBM: 882
  MiB (A100-80GB).
* Without an smi total, that of the named relative scaled by the nominal sizes takes its place.
* AMD exposes nearly everything: nominal × 23.98 / 24, the smallest share seen.

Not listed are cards with an advertised size only (Gaudi, Data Center GPU Max), and those that share memory with the
processor, unless torch's total was seen under Linux (DGX Spark, Jetson): what else runs takes its part of that.
"""

from __future__ import annotations

import csv
import os.path
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import chain

from peftbench.base.errors import CatalogError, SpecError, did_you_mean
from peftbench.base.units import MIB, human_bytes
from peftbench.base.visible import written
from peftbench.inputs.card.cuda_context import context_bytes
from peftbench.inputs.card.gpu import GpuSpec, Kernels

GPUS_CSV = os.path.join(os.path.dirname(__file__), "gpus.csv")
SPEED = (
    "memory_bandwidth", "l2_bytes", "tensor_flops", "float32_flops", "best_flops", "best_matmul_share", "power_w",
    "link_bandwidth", "link_cards", "network_bandwidth", "pcie", "steps_published",
)  # fmt: skip
"""What a driver does not tell of a card."""


@cache
def list_gpus() -> tuple[GpuSpec, ...]:
    """Every card of the catalogue, in the order of the file."""
    return tuple(_spec(row) for row in _rows())


def find_gpu(text: str) -> GpuSpec:
    """Find a card by name, alias or product name; case, spaces and punctuation do not matter.

    Raises CatalogError, with the nearest known name, for anything else.
    """
    if not isinstance(text, str):
        raise CatalogError(f"a GPU is a name, not {written(text)}.", "As in t4; `peftbench gpus` lists all.")
    wanted = _key(text)
    named = (row for row in _rows() if row["name"] == text)  # most are typed so, and all cards take time
    spelled = (row for row in _rows() if wanted in map(_key, _spellings(row)))
    for row in chain(named, spelled):
        return _spec(row)
    near = did_you_mean(text[:40], (spelling.strip() for row in _rows() for spelling in _spellings(row)))
    advice = f"`peftbench gpus` lists all {len(list_gpus())}; or give --gpu-memory 16GiB."
    raise CatalogError(f"unknown GPU {text[:40]!r}.", f"{near} {advice}".strip())


def with_speed(card: GpuSpec) -> GpuSpec:
    """A card that a driver named, with what the catalogue knows of its speed and kernels.

    One that it does not know keeps its speed unknown, and has the kernels of its compute capability.
    """
    try:
        known = find_gpu(card.product)
    except CatalogError:
        return replace(card, listed_kernels=_kernels_of(card.compute_capability))
    return replace(card, **{field: getattr(known, field) for field in (*SPEED, "listed_kernels")})


def _kernels_of(capability: tuple[int, int] | None) -> Kernels | None:
    """Those of the first card of this compute capability; None where there is none."""
    alike = (row for row in _rows() if capability and _capability(row["compute_capability"]) == capability)
    return next(map(_kernels, alike), None)


def gpu_of_size(memory_bytes: int) -> GpuSpec:
    """Make a modern card of a given size, for `--gpu-memory`: the size counts as what torch sees."""
    context = context_bytes(None, None)
    if memory_bytes <= context:
        raise SpecError(
            f"{human_bytes(memory_bytes)} leaves no room beside the CUDA context of {human_bytes(context)}.",
            "Give the memory of the whole card, as in --gpu-memory 16GiB.",
        )
    return GpuSpec(
        name="given", product="given", memory_bytes=memory_bytes, memory_source="given", context_bytes=context
    )


def _key(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _spellings(row: dict[str, str]) -> list[str]:
    return [row["name"], row["product"], *row["aliases"].split(";")]


def _rows() -> Iterator[dict[str, str]]:
    """The file's, as far as they are asked for."""
    with open(GPUS_CSV, encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        heading = next(rows)
        for row in rows:
            yield dict(zip(heading, row, strict=True))


def _spec(row: dict[str, str]) -> GpuSpec:
    multiprocessors, capability = _scaled(row["multiprocessors"]), _capability(row["compute_capability"])
    return GpuSpec(
        name=row["name"],
        product=row["product"],
        memory_bytes=int(row["memory_mib_torch"]) * MIB,
        memory_source=row["memory_source"],
        nominal_gb=int(row["nominal_gb"]),
        compute_capability=capability,
        listed_kernels=_kernels(row),
        memory_bandwidth=_scaled(row["memory_bandwidth_gb_s"], 10**9),
        l2_bytes=_scaled(row["l2_mb"], MIB),
        multiprocessors=multiprocessors,
        tensor_flops=_scaled(row["dense_tensor_tflops"], 10**12),
        float32_flops=_scaled(row["float32_tflops"], 10**12),
        best_flops=_scaled(row["mamf_bf16_tflops"], 10**12),
        best_matmul_share=float(row["best_matmul_share"]) if row["best_matmul_share"] else None,
        power_w=_scaled(row["tdp_w"]),
        link_bandwidth=_scaled(row["link_gb_s"], 10**9),
        link_cards=_scaled(row["link_cards"]),
        network_bandwidth=_scaled(row["network_gb_s"], 10**9),
        pcie=row["pcie"],
        steps_published=row["steps_published"] == "yes",
        context_bytes=context_bytes(multiprocessors, capability),
        notes=row["notes"],
    )


def _kernels(row: dict[str, str]) -> Kernels:
    return Kernels(*(row[kind] == "yes" for kind in Kernels._fields))


def _capability(text: str) -> tuple[int, int] | None:
    if not text:
        return None
    major, minor = text.split(".")
    return int(major), int(minor)


def _scaled(text: str, unit: int = 1) -> int | None:
    return round(float(text) * unit) if text else None
