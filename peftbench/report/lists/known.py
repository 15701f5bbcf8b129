"""The lists of `peftbench models`, `gpus`, `doctor` and `calibrate`: what is known, or was found, and from where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from peftbench.base.units import gib, human_count
from peftbench.estimate.sharding.links import link_rate
from peftbench.inputs.recipe import ParallelismSpec
from peftbench.report.format.sheet import UNKNOWN, Column, Row, Sheet, listing

if TYPE_CHECKING:
    from peftbench.catalog.models import CatalogModel
    from peftbench.inputs.card.gpu import GpuSpec
    from peftbench.measure.doctor import Finding
    from peftbench.records.calibration import Calibration

PAGES_ONLY = 1000
"""Wider than any terminal."""

MODELS = (
    Column("model", "model"),
    Column("short names", "aliases", lambda names: ", ".join(n for n in names if "/" not in n) or UNKNOWN),
    Column("parameters", "num_parameters", human_count, "r"), Column("architecture", "architecture"),
    Column("by", "answered_by"),
    Column("as good as", "aliases", lambda names: ", ".join(n for n in names if "/" in n) or UNKNOWN, room=PAGES_ONLY),
    Column("source", "source", room=PAGES_ONLY),
)  # fmt: skip


FAMILIES = (
    Column("architecture", "architecture"), Column("kind", "kind"), Column("models", "models", side="r"),
    Column("smallest", "least", human_count, "r"), Column("largest", "most", human_count, "r"),
    Column("by", "answered_by"),
)  # fmt: skip


def models_sheet(models: Iterable[CatalogModel], note: str, by_family: bool = False) -> Sheet:
    """One row a checkpoint, in the order of the catalogue; people are shown one a family where that is asked for."""
    rows = [
        {"model": m.id, "aliases": list(m.aliases), "num_parameters": m.num_parameters,
         "architecture": m.config["model_type"], "kind": m.kind,
         "answered_by": "formula" if m.has_formula else "dry run", "published_parameters": m.published,
         "downloads": m.downloads, "evidence": m.evidence, "doubts": list(m.doubts), "source": m.source}
        for m in models
    ]  # fmt: skip
    if by_family:
        return listing("Models", FAMILIES, rows, note, _families(rows))
    return listing("Models", MODELS, rows, note)


def _families(rows: Iterable[Row]) -> list[dict[str, object]]:
    """One row an architecture, those with the most checkpoints first."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(str(row["architecture"]), []).append(row)
    return [
        {"architecture": name, "kind": group[0]["kind"], "models": len(group),
         "least": min(row["num_parameters"] for row in group), "most": max(row["num_parameters"] for row in group),
         "answered_by": group[0]["answered_by"]}
        for name, group in sorted(grouped.items(), key=lambda item: (-len(item[1]), item[0]))
    ]  # fmt: skip


GPUS = (
    Column("card", "gpu"), Column("GiB", "memory_bytes", gib, "r"), Column("box GB", "nominal_gb", side="r"),
    Column("CUDA", "compute_capability", side="r"),
    Column("bf16", "has_bfloat16", lambda has: "yes" if has else "no"), Column("who says so", "memory_source"),
)  # fmt: skip


_OVER_PCIE = ParallelismSpec(gpus=2, strategy="ddp", link="pcie")


def gpus_sheet(gpus: Iterable[GpuSpec], note: str) -> Sheet:
    """One row a card, in tables the smallest memory first."""
    rows = [
        {"gpu": g.name, "product": g.product, "memory_bytes": g.memory_bytes, "usable_bytes": g.usable_bytes,
         "context_bytes": g.context_bytes, "nominal_gb": g.nominal_gb,
         "compute_capability": ".".join(map(str, g.compute_capability)) if g.compute_capability else None,
         "has_bfloat16": g.has_bfloat16, "memory_bandwidth_bytes_per_s": g.memory_bandwidth,
         "multiprocessors": g.multiprocessors, "tensor_flops": g.tensor_flops,
         "memory_source": g.memory_source, "notes": g.notes, "best_measured_flops": g.best_flops, "power_w": g.power_w,
         "best_matmul_share": g.best_matmul_share, "link_bytes_per_s": g.link_bandwidth, "link_cards": g.link_cards,
         "network_bytes_per_s": g.network_bandwidth, "pcie_bytes_per_s": round(link_rate(_OVER_PCIE, g)),
         "steps_published": g.steps_published, "float32_flops": g.float32_flops, "l2_bytes": g.l2_bytes, "pcie": g.pcie,
         "kernels": [kind for kind, has in g.kernels._asdict().items() if has]}
        for g in gpus
    ]  # fmt: skip
    by_memory = sorted(rows, key=lambda row: int(str(row["memory_bytes"])))
    return listing("Cards", GPUS, rows, note, by_memory)


FINDINGS = (
    Column("what", "name"), Column("status", "status"),
    Column("found", lambda row: " → ".join(filter(None, (row["detail"], row["remedy"])))),
)  # fmt: skip


def doctor_sheet(findings: Sequence[Finding]) -> Sheet:
    """One row a finding; what mends it stands behind what is wrong."""
    ok = sum(finding.status == "ok" for finding in findings)
    some = f"{ok} of {len(findings)} are in order. `plan` needs none of the others."
    note = f"all {ok} are in order." if ok == len(findings) else some
    return listing("What can be measured here", FINDINGS, [asdict(finding) for finding in findings], note)


CONSTANTS = (
    Column("constant", "constant"), Column("value", "value", side="r"), Column("range", "range"),
    Column("unit", "unit"), Column("decided by", "decided_by"),
)  # fmt: skip


def calibration_sheet(found: Calibration) -> Sheet:
    """One row a constant, values in the units of the file; how good they are on cases that were left out."""
    rows = [
        {"constant": name, "value": one.value, "low": one.low, "high": one.high, "unit": one.unit,
         "records": one.records, "fitted": one.fitted}
        for name, one in found.constants.items()
    ]  # fmt: skip
    return listing("Constants of the card", CONSTANTS, rows, _held_out(found), _constants(found))


def _constants(found: Calibration) -> Iterable[dict[str, str]]:
    """As people write them: sizes with their unit, a share with what it is of."""
    from peftbench.records.calibration import value_text

    for name, one in found.constants.items():
        of = f"of {found.tensor_flops / 10**12:g} TFLOP/s" if found.tensor_flops else one.unit
        yield {
            "constant": name.removesuffix("_bytes").removesuffix("_s").replace("_", " "),
            "value": value_text(name, one.value),
            "range": f"{value_text(name, one.low)}–{value_text(name, one.high)}",
            "unit": of if one.unit == "of tensor_flops" else one.unit if one.unit != "bytes" else "",
            "decided_by": f"{one.records} run{'s' if one.records != 1 else ''}" if one.fitted else "prior",
        }


def _held_out(found: Calibration) -> str:
    """On what, how good, and how good the priors are on the same cases."""
    held = found.held_out
    times = f"time ×{held.prior_time_median:.2f}" if held.prior_time_median else ""
    memory = f"device peak {held.prior_device_median:.1%}" if held.prior_device_median is not None else ""
    priors = ", ".join(filter(None, (times, memory)))
    text = found.text[0].upper() + found.text[1:]
    return f"{text} The priors on the same cases: {priors}." if priors else text
