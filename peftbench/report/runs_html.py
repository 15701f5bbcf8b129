"""Measured runs as one self-contained HTML file: a table, and charts that work without a network, light and dark."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby

from peftbench.check.comparison import Comparison
from peftbench.report.page import drawn, page, require_plotly
from peftbench.report.runs_charts import parts_figure, scatter_figure, step_figure, time_figures
from peftbench.report.runs_table import TITLES, place_of, place_title, run_cells

_STYLE = """
:root { color-scheme: light; --ink: #1f2933; --muted: #52606d; --rule: #cbd2d9; --paper: #fff; --bad: #b4232a; }
:root[data-theme=dark] { color-scheme: dark; --ink: #e4e7eb; --muted: #9aa5b1; --rule: #3e4c59; --paper: #14191f;
                         --bad: #ff8f8f; }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 1.5rem auto;
       padding: 0 1rem; max-width: 1200px; }
h1 { font-size: 1.35rem; margin: 0 0 .3rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .2rem; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.2rem 0 .2rem; } p { margin: .15rem 0 .5rem; } .muted, footer { color: var(--muted); }
.head { display: flex; gap: 1rem; justify-content: space-between; align-items: start; }
.wide { overflow-x: auto; } .modebar { display: none; }
table { border-collapse: collapse; width: 100%; font-size: .87em; }
th { text-align: left; font-weight: 600; border-bottom: 2px solid var(--rule); white-space: nowrap; }
th, td { padding: .25rem .8rem .25rem 0; vertical-align: top; }
td { border-bottom: 1px solid var(--rule); overflow-wrap: anywhere; min-width: 4rem; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; } .bad { color: var(--bad); }
button, select { font: inherit; color: inherit; background: var(--paper); border: 1px solid var(--rule);
                 border-radius: .3rem; padding: .25rem .6rem; max-width: 100%; }
footer { margin: 2rem 0; font-size: .9em; }
"""

_SCRIPT = """
const root = document.documentElement, toggle = document.getElementById("theme");
const wanted = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
function show(theme) {
  root.dataset.theme = theme;
  toggle.textContent = theme === "dark" ? "Light" : "Dark";
  toggle.setAttribute("aria-pressed", theme === "dark");
}
toggle.addEventListener("click", () => show(root.dataset.theme === "dark" ? "light" : "dark"));
show(wanted);
const chooser = document.getElementById("run");
if (chooser) {
  const runs = JSON.parse(document.getElementById("runs").textContent);
  chooser.addEventListener("change", () => {
    const figure = runs[chooser.selectedIndex];
    Plotly.react("over-time", figure.data, figure.layout);
  });
}
"""


def runs_html(comparisons: Sequence[Comparison]) -> str:
    """The page. Raises PeftbenchError where plotly is missing."""
    require_plotly("a report in HTML")
    products = dict.fromkeys(c.record.environment.product for c in comparisons)
    title = f"{len(comparisons)} runs on {', '.join(products)}"
    body = [
        f'<div class="head"><h1>{escape(title)}</h1><button id="theme" type="button">Dark</button></div>',
        '<p class="muted">Measured by peftbench. Predictions were made afresh from each run\'s recipe: allocated is '
        "torch's peak of tensors, device is what the driver sees beyond what was there before.</p>",
        '<h2 id="accuracy">Predicted against measured</h2>',
        drawn(scatter_figure(comparisons), "scatter"),
        *_groups(comparisons),
        *_over_time(comparisons),
        "<footer>Drag in a chart to zoom, double-click to see all again, click a name to hide it. This file loads "
        "nothing from anywhere.</footer>",
        f"<script>{_SCRIPT}</script>",
    ]
    return page(title, _STYLE, "\n".join(body))


def _groups(comparisons: Sequence[Comparison]) -> Iterable[str]:
    """A device and suite each: table, parts and step time."""
    for number, (_, group) in enumerate(groupby(comparisons, place_of)):
        runs = list(group)
        yield f"<h2>{escape(place_title(runs[0]))}</h2>"
        yield _table(runs)
        yield "<h3>What is predicted at the peak, and what was measured</h3>"
        yield drawn(parts_figure(runs), f"parts-{number}", with_library=False)
        yield "<h3>Time</h3>"
        yield drawn(step_figure(runs), f"steps-{number}", with_library=False)


def _table(runs: Sequence[Comparison]) -> str:
    first, last = (f'<th scope="col">{escape(TITLES[place])}</th>' for place in (0, -1))
    middle = "".join(f'<th scope="col" class="number">{escape(title)}</th>' for title in TITLES[1:-1])
    headings = f"{first}{middle}{last}"
    rows = "\n".join(_row(run) for run in runs)
    return f'<div class="wide"><table>\n<thead><tr>{headings}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>'


def _row(run: Comparison) -> str:
    cells = run_cells(run)
    bad = ' class="bad"' if run.record.measurement.outcome.value != "ok" else ""
    first, last = f"<td>{escape(cells[0])}</td>", f"<td{bad}>{escape(cells[-1])}</td>"
    middle = "".join(f'<td class="number">{escape(cell)}</td>' for cell in cells[1:-1])
    return f"<tr>{first}{middle}{last}</tr>"


def _over_time(comparisons: Sequence[Comparison]) -> Iterable[str]:
    """One chart for all runs, and a list to choose from."""
    figures = time_figures(comparisons)
    if not figures:
        return
    options = "".join(f"<option>{escape(name)}</option>" for name in figures)
    yield '<h2>Memory over time</h2>\n<p><label>Run <select id="run">' + options + "</select></label></p>"
    yield drawn(next(iter(figures.values())), "over-time", with_library=False)
    yield f'<script type="application/json" id="runs">{_inert(list(figures.values()))}</script>'


def _inert(value: object) -> str:
    """JSON that no HTML parser sees a tag or a comment in."""
    text = json.dumps(value, allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
