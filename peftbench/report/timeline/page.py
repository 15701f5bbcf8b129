"""The memory timeline of a dry run as one self-contained HTML file: a chart to zoom, and who holds the peak."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from peftbench.allocator.settings import AllocatorSettings
from peftbench.base.units import human_bytes, human_count
from peftbench.decide.plan.plan import Plan
from peftbench.inputs.model.weights import num_parameters
from peftbench.report.format.figure import COLOURS
from peftbench.report.format.html import page as filled
from peftbench.report.format.sheet import Figure, Note, Page
from peftbench.report.plan.header import DOT, assumptions, card_title
from peftbench.report.timeline.chart import Peak, chart, when

if TYPE_CHECKING:
    from peftbench.dryrun.session import DryRun
    from peftbench.dryrun.trace.timeline import HolderGroup

POINTS = 2000
"""More than a screen has columns, so that there is something to zoom into."""
ROWS, LISTED = 30, 5
"""Groups of tensors in the table, and in the label of the peak."""


def timeline_html(plan: Plan) -> str:
    """The page for a plan that has a dry run with a trace. Raises PeftbenchError where the extra is missing."""
    from peftbench.dryrun.session import DryRun
    from peftbench.dryrun.trace.timeline import alike, holders

    assert isinstance(plan.dry_run, DryRun)
    groups = alike(holders(plan.dry_run.trace, plan.dry_run.replay))
    sizes = (f"{human_count(num_parameters(plan.model))} parameters", card_title(plan.gpu))
    page = Page(
        title=DOT.join((plan.model.name, plan.method, plan.gpu.name if plan.gpu else "no card")),
        lead=[plan.summary, DOT.join(sizes), DOT.join((*assumptions([plan]), *_run(plan.dry_run)))],
        notes=[*map(Note, (f"P{peak(plan)[1:]}.", *plan.notes))],
        footer=_origin(plan.dry_run),
    )
    return filled(page, "timeline.html.j2", figure=figure(plan.dry_run, groups), holders=_rows(groups))


def _run(dry_run: DryRun) -> list[str]:
    """What was asked of the run besides the recipe."""
    workload, settings = dry_run.workload, dry_run.settings._asdict()
    usual = AllocatorSettings()._asdict()
    lengths = ", ".join(f"{length:,}" for length in workload.batch_lengths)
    shown = [
        f"batches of {lengths} tokens" if lengths else "",
        f"cache emptied every {workload.empty_cache_steps} steps" if workload.empty_cache_steps else "",
        *(f"{name}={value}" for name, value in settings.items() if value != usual[name]),
    ]
    return [text for text in shown if text]


def peak(plan: Plan) -> str:
    """The highest moment of the run: "peak 9.26 GiB allocated in the backward pass of step 2, 11.23 GiB reserved"."""
    from peftbench.dryrun.session import DryRun

    assert isinstance(plan.dry_run, DryRun)
    replayed = plan.dry_run.replay
    moment = when(replayed.highest.step, replayed.highest.phase)
    allocated, reserved = human_bytes(replayed.highest.allocated_bytes), human_bytes(replayed.reserved_bytes)
    return f"peak {allocated} allocated in the {moment}, {reserved} reserved"


def figure(dry_run: DryRun, groups: tuple[HolderGroup, ...]) -> Figure:
    """The chart of a run."""
    from peftbench.dryrun.trace.timeline import timeline

    trace, replayed = dry_run.trace, dry_run.replay
    points = timeline(trace, replayed, dry_run.settings, POINTS)
    failure = dry_run.on_card.failure if dry_run.on_card else None
    return chart(points, trace.marks, Peak(replayed.highest.position, groups[:LISTED]), dry_run.gpu, failure)


# ── the table ───────────────────────────────────────────────────────────────────────────────────────────────


def _rows(groups: tuple[HolderGroup, ...]) -> list[dict[str, object]]:
    """The largest groups, how much is in the others, and in all: what the template's table shows."""
    total = sum(group.bytes for group in groups)
    rows = [{**_figures((group,), total), **_row(group)} for group in groups[:ROWS]]
    if groups[ROWS:]:
        rows.append({**_figures(groups[ROWS:], total), "sum": "smaller ones"})
    return [*rows, {**_figures(groups, total), "sum": "all"}]


def _figures(groups: tuple[HolderGroup, ...], total: int) -> dict[str, object]:
    """Bytes, their share and the number of blocks."""
    size, blocks = sum(group.bytes for group in groups), sum(group.blocks for group in groups)
    share = f"{100 * size / total:.1f} %" if total else ""
    return {"size": human_bytes(size), "share": share, "blocks": f"{blocks:,}"}


def _row(group: HolderGroup) -> dict[str, object]:
    """Names are split where a line may be broken: between their words."""
    block = group.like
    word, _, rest = block.part.value.partition(" ")
    return {
        "sum": "", "colour": COLOURS[block.part], "part": (word, rest),
        "module": _words(block.module or "—"), "operation": _words(block.operation),
        "tensor": f"{block.dtype} [{block.shape}]" if block.dtype else "kernel's scratch",
    }  # fmt: skip


def _words(name: str) -> list[str]:
    return re.split(r"(?<=[._])(?=.)|(?<=::)(?=.)", name)


def _origin(dry_run: DryRun) -> str:
    """How the figures came about."""
    from peftbench.libraries.versions import installed_versions

    libraries = ", ".join(f"{name} {version}" for name, version in installed_versions().items())
    return (
        f"Dry run by peftbench: the libraries' own code on fake tensors ({libraries}). Its "
        f"{len(dry_run.trace.events):,} allocations and frees were replayed through a simulation of PyTorch's "
        "allocator, with as much memory as they take; nothing was measured on a card."
    )
