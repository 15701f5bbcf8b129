"""The frame of an HTML page that loads nothing from anywhere: its head, its policy, and plotly's figures in it."""

from __future__ import annotations

from html import escape
from typing import Any

from peftbench.base.errors import PeftbenchError
from peftbench.report.format.table import Table

Figure = dict[str, Any]
"""A plain dictionary of plotly's JSON, so that plotly itself is only loaded to write it."""

_BUTTONS = ["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]
"""All of them: plotly's own choice has one that uploads the chart."""
_CONFIG = {"displaylogo": False, "responsive": True, "modeBarButtons": [_BUTTONS]}
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
"""The browser is told to load nothing from anywhere."""

_THEMED = """
:root { color-scheme: light; --ink: #1f2933; --muted: #52606d; --rule: #cbd2d9; --paper: #fff; --bad: #b4232a; }
:root[data-theme=dark] { color-scheme: dark; --ink: #e4e7eb; --muted: #9aa5b1; --rule: #3e4c59; --paper: #14191f;
                         --bad: #ff8f8f; }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 1.5rem auto;
       padding: 0 1rem; max-width: 1200px; }
h1 { font-size: 1.35rem; margin: 0 0 .3rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .2rem; overflow-wrap: anywhere; }
.head { display: flex; gap: 1rem; justify-content: space-between; align-items: start; }
.muted, footer { color: var(--muted); } .wide { overflow-x: auto; } .modebar { display: none; }
table { border-collapse: collapse; width: 100%; font-size: .87em; }
th { text-align: left; font-weight: 600; border-bottom: 2px solid var(--rule); white-space: nowrap; }
th, td { padding: .25rem .8rem .25rem 0; vertical-align: top; } td { border-bottom: 1px solid var(--rule); }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
button, select { font: inherit; color: inherit; background: var(--paper); border: 1px solid var(--rule);
                 border-radius: .3rem; padding: .25rem .6rem; max-width: 100%; }
.xtick text, .ytick text, .legendtext, .xtitle, .ytitle { fill: var(--muted) !important; }
"""
"""CSS of a page that is light or dark, as the reader's system or the button says."""
_THEME_SCRIPT = """
const root = document.documentElement, toggle = document.getElementById("theme");
const wanted = matchMedia("(prefers-color-scheme: dark)");
function show(theme) {
  root.dataset.theme = theme;
  toggle.textContent = theme === "dark" ? "Light" : "Dark";
  toggle.setAttribute("aria-pressed", theme === "dark");
}
toggle.addEventListener("click", () => show(root.dataset.theme === "dark" ? "light" : "dark"));
wanted.addEventListener("change", () => show(wanted.matches ? "dark" : "light"));
show(wanted.matches ? "dark" : "light");
"""


def page(title: str, style: str, body: str) -> str:
    """A whole document; `title` is text, `style` CSS and `body` HTML."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def themed_page(title: str, body: str, style: str = "", script: str = "") -> str:
    """A document under its title that is light or dark; `style` and `script` come after those of every page."""
    head = f'<div class="head"><h1>{escape(title)}</h1><button id="theme" type="button">Dark</button></div>'
    return page(title, _THEMED + style, f"{head}\n{body}\n<script>{_THEME_SCRIPT}{script}</script>")


def html_table(table: Table) -> str:
    """A table that scrolls by itself where the page is too narrow."""
    kinds = ["" if letter == "l" else ' class="number"' for letter in table.alignments]
    head = "".join(
        f'<th scope="col"{kind}>{escape(text)}</th>' for text, kind in zip(table.headings, kinds, strict=True)
    )
    rows = "\n".join(
        "<tr>" + "".join(f"<td{kind}>{escape(text)}</td>" for text, kind in zip(row, kinds, strict=True)) + "</tr>"
        for row in table.rows
    )
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{escape(table.title)}"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>"
    )


def require_plotly(what: str) -> None:
    """Raise PeftbenchError where plotly is missing: before the work, not after it."""
    try:
        import plotly.io  # noqa: F401
    except ImportError as error:
        raise PeftbenchError(f"{what} is drawn by plotly, which is not installed.",
                             "Type: pip install 'peftbench[report]'") from error  # fmt: skip


def drawn(figure: Figure, id: str, with_library: bool = True) -> str:
    """A figure as a piece of HTML; the first of a page brings plotly's own code along."""
    import plotly.io

    html: str = plotly.io.to_html(
        figure, config=_CONFIG, include_plotlyjs=with_library, full_html=False, validate=False, div_id=id
    )
    return html


def plain(name: str) -> str:
    """A name inside a chart, where plotly would read tags and entities."""
    return name.replace("<", "‹").replace(">", "›").replace("&", "&amp;")
