"""Measured runs as one self-contained HTML file: a table, and charts that work without a network, light and dark."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape

from peftbench.check.runs.comparison import Comparison
from peftbench.records.comparison import ComparisonRecord
from peftbench.records.environment import Outcome
from peftbench.report.comparisons.html import comparison_sections
from peftbench.report.format.page import Figure, drawn, require_plotly, themed_page
from peftbench.report.runs.charts import PARTS, parts_figure, parts_of, scatter_figure, step_figure
from peftbench.report.runs.course import time_figures
from peftbench.report.runs.table import Group, group_title, grouped, on_card, one_line, run_cells, titles

_STYLE = """
h3 { font-size: 1rem; margin: 1.2rem 0 .2rem; } p { margin: .15rem 0 .5rem; }
td { overflow-wrap: anywhere; min-width: 4rem; } td:first-child { min-width: 10rem; } .bad { color: var(--bad); }
footer { margin: 2rem 0; font-size: .9em; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1rem; margin: .2rem 0; padding: 0;
          font-size: .87em; }
.swatch { display: inline-block; width: .75em; height: .75em; margin-right: .4em; border: 1px solid #0003; }
.annotation-text { fill: var(--ink) !important; } .card .annotation:last-of-type text { fill: var(--bad) !important; }
"""

_SCRIPT = """
const chooser = document.getElementById("run");
if (chooser) {
  const runs = JSON.parse(document.getElementById("runs").textContent);
  chooser.addEventListener("change", () => {
    const figure = runs[chooser.selectedIndex];
    Plotly.react("over-time", figure.data, figure.layout);
  });
}
"""


def runs_html(comparisons: Sequence[Comparison], compared: Sequence[ComparisonRecord] = ()) -> str:
    """The page of runs beside their predictions, and of variants that were compared with each other.

    Raises PeftbenchError where plotly is missing.
    """
    require_plotly("a report in HTML")
    places = (*(c.record.environment for c in comparisons), *(record.environment for record in compared))
    products = ", ".join(dict.fromkeys(place.product for place in places))
    title = one_line(f"{len(places)} run{'s' * (len(places) != 1)} on {products}")
    body = [
        "<noscript><p>The charts need JavaScript; the tables do not.</p></noscript>",
        *(_runs(comparisons) if comparisons else ()),
        *comparison_sections(compared, with_library=not comparisons),
        "<footer>Drag in a chart to zoom, double-click to see all again, click a name in a chart to hide it. This "
        "file loads nothing from anywhere.</footer>",
    ]
    return themed_page(title, "\n".join(body), _STYLE, _SCRIPT)


def _runs(comparisons: Sequence[Comparison]) -> Iterable[str]:
    """What was predicted beside what was measured, and every suite on every device."""
    yield (
        '<p class="muted">Measured by peftbench. Predictions were made afresh from each run\'s recipe: allocated is '
        "torch's peak of tensors, device is what the driver sees beyond what was there before, process is the "
        "resident set with the libraries' code. What a run had reached that did not end well is marked ≥.</p>"
    )
    yield '<h2 id="accuracy">Predicted against measured</h2>'
    accuracy = "Allocated peaks, predicted against measured, on logarithmic axes"
    yield _chart(scatter_figure(comparisons), "scatter", accuracy, with_library=True)
    yield from _groups(comparisons)
    yield from _over_time(comparisons)


def _chart(figure: Figure, id: str, label: str, with_library: bool = False, kind: str = "chart") -> str:
    """A figure, and what it is for those who cannot see it."""
    return f'<div class="{kind}" role="img" aria-label="{escape(label)}">{drawn(figure, id, with_library)}</div>'


def _groups(comparisons: Sequence[Comparison]) -> Iterable[str]:
    """A device and suite each: table, parts and step time."""
    for number, group in enumerate(grouped(comparisons)):
        title = group_title(group)
        yield f"<h2>{escape(title)}</h2>"
        yield _table(group, title)
        yield "<h3>What is predicted at the peak, and what was measured</h3>"
        yield _legend(group)
        kind = "chart card" if on_card(group) else "chart"
        yield _chart(parts_figure(group), f"parts-{number}", f"Predicted parts and measured peaks: {title}", kind=kind)
        steps = step_figure(group)
        if steps:
            yield "<h3>Time of a step, or of a generation</h3>"
            yield _chart(steps, f"steps-{number}", f"Time of a step: {title}")


def _legend(group: Group) -> str:
    """Outside of the chart, where it has room at any width."""
    swatches = {part: f'<span class="swatch" style="background:{PARTS[part]}"></span>' for part in parts_of(group)}
    entries = (f"<li>{swatch}{part}</li>" for part, swatch in swatches.items())
    measured = "measured, device" if on_card(group) else "measured, tensors"
    return f'<ul class="legend">{"".join(entries)}<li>◆ {measured}</li></ul>'


def _table(group: Group, title: str) -> str:
    names = titles(group)
    first, last = (f'<th scope="col">{escape(names[place])}</th>' for place in (0, -1))
    middle = "".join(f'<th scope="col" class="number">{escape(name)}</th>' for name in names[1:-1])
    rows = "\n".join(_row(run) for run in group)
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{escape(title)}"><table>\n'
        f"<thead><tr>{first}{middle}{last}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>"
    )


def _row(run: Comparison) -> str:
    cells = run_cells(run)
    bad = ' class="bad"' if run.record.measurement.outcome is not Outcome.OK else ""
    first, last = f"<td>{escape(cells[0])}</td>", f"<td{bad}>{escape(cells[-1])}{_unpredicted(run)}</td>"
    middle = "".join(f'<td class="number">{escape(cell)}</td>' for cell in cells[1:-1])
    return f"<tr>{first}{middle}{last}</tr>"


def _unpredicted(run: Comparison) -> str:
    """Why there is no prediction."""
    return f'<br><span class="muted">not predicted: {escape(one_line(run.note))}</span>' if run.note else ""


def _over_time(comparisons: Sequence[Comparison]) -> Iterable[str]:
    """One chart for all runs, and a list to choose from."""
    figures = time_figures(comparisons)
    if not figures:
        return
    options = "".join(f"<option>{escape(one_line(name))}</option>" for name in figures)
    yield '<h2>Memory over time</h2>\n<p><label>Run <select id="run">' + options + "</select></label></p>"
    yield _chart(next(iter(figures.values())), "over-time", "Memory of the chosen run over time")
    yield f'<script type="application/json" id="runs">{_inert(list(figures.values()))}</script>'


def _inert(value: object) -> str:
    """JSON that no HTML parser sees a tag or a comment in."""
    text = json.dumps(value, allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
