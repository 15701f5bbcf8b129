"""The memory timeline of a dry run as one self-contained HTML file: a chart to zoom, and who holds the peak."""

from __future__ import annotations

import re
from dataclasses import asdict
from html import escape
from typing import TYPE_CHECKING

from peftbench.base.units import human_bytes, human_count
from peftbench.decide.plan.plan import Plan
from peftbench.dryrun.allocator.settings import AllocatorSettings
from peftbench.inputs.model.weights import num_parameters
from peftbench.report.format.page import Figure, drawn, page, require_plotly
from peftbench.report.plan.header import DOT, assumptions, card_title
from peftbench.report.timeline.chart import COLOURS, Peak, chart, when

if TYPE_CHECKING:
    from peftbench.dryrun.session import DryRun
    from peftbench.dryrun.trace.timeline import HolderGroup

POINTS = 2000
"""More than a screen has columns, so that there is something to zoom into."""
ROWS, LISTED = 30, 5
"""Groups of tensors in the table, and in the label of the peak."""

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1f2933; background: #fff; margin: 1.5rem auto; padding: 0 1rem;
       max-width: 1500px; }
h1 { font-size: 1.35rem; margin: 0 0 .3rem; overflow-wrap: anywhere; } h2 { font-size: 1.1rem; margin: 1.5rem 0 .4rem; }
p { margin: .15rem 0; } .recipe, .how, footer { color: #52606d; font-size: .9em; } footer { margin: 1.5rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .87em; }
@media (max-width: 950px) { table { font-size: .78em; } .share { display: none; } }
th { text-align: left; font-weight: 600; border-bottom: 2px solid #cbd2d9; }
th, td { padding: .22rem .8rem .22rem 0; vertical-align: top; }
td { border-bottom: 1px solid #e9ecef; overflow-wrap: break-word; }
.number { text-align: right; font-variant-numeric: tabular-nums; } .number, .whole { white-space: nowrap; }
.swatch { display: inline-block; width: .75em; height: .75em; margin-right: .4em; border: 1px solid #0002; }
code { font: .95em ui-monospace, Menlo, Consolas, monospace; }
* { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
@media print { body { margin: 0; font-size: 11px; } .how, .modebar { display: none; }
               tr, .plotly-graph-div { break-inside: avoid; } }
"""


def timeline_html(plan: Plan) -> str:
    """The page for a plan that has a dry run with a trace. Raises PeftbenchError where plotly is missing."""
    from peftbench.dryrun.session import DryRun
    from peftbench.dryrun.trace.timeline import alike, holders

    require_plotly("a timeline")
    assert isinstance(plan.dry_run, DryRun)
    groups = alike(holders(plan.dry_run.trace, plan.dry_run.replay))
    title = DOT.join((plan.model.name, plan.method, plan.gpu.name if plan.gpu else "no card"))
    sizes = (f"{human_count(num_parameters(plan.model))} parameters", card_title(plan.gpu))
    recipe = (*assumptions([plan]), *_run(plan.dry_run))
    body = [
        f"<h1>{escape(title)}</h1>",
        *(f'<p class="recipe">{escape(DOT.join(line))}</p>' for line in (sizes, recipe)),
        *(f"<p>{escape(sentence)}</p>" for sentence in (_verdict(plan), *plan.notes)),
        drawn(figure(plan.dry_run, groups), "timeline"),
        '<p class="how">Drag to zoom, double-click to see all again, click a name to hide it.</p>',
        "<h2>What holds memory at the peak</h2>",
        _table(groups),
        f"<footer>{escape(_origin(plan.dry_run))}</footer>",
    ]
    return page(title, _STYLE, "\n".join(body))


def _run(dry_run: DryRun) -> list[str]:
    """What was asked of the run besides the recipe."""
    workload, settings = dry_run.workload, asdict(dry_run.settings)
    usual = asdict(AllocatorSettings())
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


def _verdict(plan: Plan) -> str:
    """The peak, and whether the card has room for what is reserved."""
    text = f"P{peak(plan)[1:]}."
    verdict = plan.final_verdict
    if verdict is None:
        return text
    room = verdict.headroom_bytes
    margin = f"{human_bytes(room)} to spare" if room >= 0 else f"{human_bytes(-room)} more than is usable"
    return f"{text} {verdict.fit.text.capitalize()}: {margin} on {plan.gpu.name if plan.gpu else 'it'}."


def figure(dry_run: DryRun, groups: tuple[HolderGroup, ...]) -> Figure:
    """The chart of a run."""
    from peftbench.dryrun.trace.timeline import timeline

    trace, replayed = dry_run.trace, dry_run.replay
    points = timeline(trace, replayed, dry_run.settings, POINTS)
    failure = dry_run.on_card.failure if dry_run.on_card else None
    return chart(points, trace.marks, Peak(replayed.highest.position, groups[:LISTED]), dry_run.gpu, failure)


# ── the table ───────────────────────────────────────────────────────────────────────────────────────────────


def _table(groups: tuple[HolderGroup, ...]) -> str:
    """The largest groups, how much is in the others, and in all."""
    total = sum(group.bytes for group in groups)
    rows = [_row(group, total) for group in groups[:ROWS]]
    rows += [_sum("smaller ones", groups[ROWS:], total)] if groups[ROWS:] else []
    rows.append(_sum("all", groups, total))
    headings = (
        '<th class="number">size</th><th class="number share">share</th><th class="number">blocks</th>'
        "<th>part</th><th>module</th><th>operation</th><th>tensor</th>"
    )
    return f"<table>\n<thead><tr>{headings}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody>\n</table>"


def _sum(name: str, groups: tuple[HolderGroup, ...], total: int) -> str:
    size, count = sum(group.bytes for group in groups), sum(group.blocks for group in groups)
    return f'<tr>{_figures(size, total, count)}<td colspan="4">{name}</td></tr>'


def _row(group: HolderGroup, total: int) -> str:
    block = group.like
    word, _, rest = block.part.value.partition(" ")
    swatch = f'<span class="swatch" style="background:{COLOURS[block.part]}"></span>'
    tensor = f"{block.dtype} [{block.shape}]" if block.dtype else "kernel's scratch"
    cells = [
        _figures(group.bytes, total, group.blocks),
        f'<td><span class="whole">{swatch}{word}</span> {rest}</td>',
        *(f"<td><code>{_breakable(text)}</code></td>" for text in (block.module or "—", block.operation)),
        f'<td class="whole"><code>{escape(tensor)}</code></td>',
    ]  # fmt: skip
    return f"<tr>{''.join(cells)}</tr>"


def _breakable(name: str) -> str:
    """A name that may be broken between its words."""
    return re.sub(r"(\.|::|_)(?=.)", r"\1<wbr>", escape(name))


def _figures(size: int, total: int, count: int) -> str:
    """The first three cells of a row: bytes, their share and the number of blocks."""
    share = f"{100 * size / total:.1f} %" if total else ""
    return (
        f'<td class="number">{human_bytes(size)}</td><td class="number share">{share}</td>'
        f'<td class="number">{count:,}</td>'
    )


def _origin(dry_run: DryRun) -> str:
    """How the figures came about."""
    from peftbench.libraries.versions import installed_versions

    libraries = ", ".join(f"{name} {version}" for name, version in installed_versions().items())
    return (
        f"Dry run by peftbench: the libraries' own code on fake tensors ({libraries}). Its "
        f"{len(dry_run.trace.events):,} allocations and frees were replayed through a simulation of PyTorch's "
        "allocator, with as much memory as they take; nothing was measured on a card."
    )
