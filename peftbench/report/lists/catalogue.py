"""The lists of `peftbench models` and `peftbench gpus`: what is known, and from which source."""

from __future__ import annotations

from collections.abc import Iterable

from peftbench.base.units import gib, human_count
from peftbench.catalog.models import CatalogModel
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.report.format.table import UNKNOWN, Table


def models_table(models: Iterable[CatalogModel], full: bool) -> Table:
    """One row a checkpoint, in the order of the catalogue; `full` adds other Hub ids and the source."""
    headings = ("model", "short names", "parameters", "architecture", *(("source",) if full else ()))
    rows = []
    for m in models:
        names = ", ".join(alias for alias in m.aliases if full or "/" not in alias)
        row = (m.id, names or UNKNOWN, human_count(m.num_parameters), str(m.config["model_type"]))
        rows.append((*row, m.source) if full else row)
    return Table("", headings, rows, "llrl" + "l" * full)


def models_data(models: Iterable[CatalogModel]) -> list[dict[str, object]]:
    """The same for a program."""
    return [
        {"model": m.id, "aliases": list(m.aliases), "num_parameters": m.num_parameters,
         "architecture": m.config["model_type"], "source": m.source}
        for m in models
    ]  # fmt: skip


def gpus_table(gpus: Iterable[GpuSpec]) -> Table:
    """One row a card, the smallest memory first."""
    rows = [
        (
            g.name,
            gib(g.memory_bytes),
            _known(g.nominal_gb),
            _capability(g),
            "yes" if g.has_bfloat16 else "no",
            g.memory_source,
        )
        for g in sorted(gpus, key=lambda g: g.memory_bytes)
    ]
    headings = ("card", "GiB", "box GB", "CUDA", "bf16", "who says so")
    return Table("", headings, rows, "lrrrll")


def gpus_data(gpus: Iterable[GpuSpec]) -> list[dict[str, object]]:
    """The same for a program, with every figure of the catalogue."""
    return [
        {"gpu": g.name, "product": g.product, "memory_bytes": g.memory_bytes, "usable_bytes": g.usable_bytes,
         "context_bytes": g.context_bytes, "nominal_gb": g.nominal_gb, "compute_capability": _capability(g),
         "has_bfloat16": g.has_bfloat16, "memory_bandwidth_bytes_per_s": g.memory_bandwidth,
         "multiprocessors": g.multiprocessors, "tensor_flops": g.tensor_flops,
         "memory_source": g.memory_source, "notes": g.notes, "best_measured_flops": g.best_flops, "power_w": g.power_w,
         "best_matmul_share": g.best_matmul_share, "link_bytes_per_s": g.link_bandwidth, "link_cards": g.link_cards,
         "network_bytes_per_s": g.network_bandwidth, "pcie_bytes_per_s": g.pcie_bandwidth,
         "steps_published": g.steps_published}
        for g in gpus
    ]  # fmt: skip


def _known(value: object) -> str:
    return UNKNOWN if value is None else str(value)


def _capability(gpu: GpuSpec) -> str:
    return ".".join(map(str, gpu.compute_capability)) if gpu.compute_capability else UNKNOWN
