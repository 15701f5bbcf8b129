"""The frame of an HTML page that loads nothing from anywhere: its head, its policy, and plotly's figures in it."""

from __future__ import annotations

from html import escape
from typing import Any

from peftbench.errors import PeftbenchError

Figure = dict[str, Any]
"""A plain dictionary of plotly's JSON, so that plotly itself is only loaded to write it."""

_BUTTONS = ["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]
"""All of them: plotly's own choice has one that uploads the chart."""
_CONFIG = {"displaylogo": False, "responsive": True, "modeBarButtons": [_BUTTONS]}
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
"""The browser is told to load nothing from anywhere."""


def page(title: str, style: str, body: str) -> str:
    """A whole document; `title` is text, `style` CSS and `body` HTML."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
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
