"""A page in one HTML file that loads nothing from anywhere: jinja2 fills templates/, plotly draws the figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

from peftbench.base.errors import PeftbenchError, install_hint
from peftbench.base.visible import visible
from peftbench.report.format.sheet import Figure, Page, Table

_BUTTONS = ["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]
"""All of them: plotly's own choice has one that uploads the chart."""
_CONFIG = {"displaylogo": False, "responsive": True, "modeBarButtons": [_BUTTONS]}


class Section(NamedTuple):
    """A piece of a page: a heading with what belongs under it."""

    heading: str = ""
    level: int = 2
    text: str = ""
    failure: str = ""
    points: Sequence[str] = ()
    table: Table | None = None
    legend: Sequence[tuple[str, str]] = ()
    """Colours and what they stand for."""
    figure: Figure | None = None
    id: str = ""
    """The name of the figure on the page; `label` says what it shows to those who cannot see it."""
    label: str = ""
    kind: str = "chart"
    choices: Mapping[str, Figure] | None = None
    """Other figures that may take its place, by the names to choose from."""


def check_extra() -> None:
    """Raise PeftbenchError where jinja2 or plotly is missing."""
    try:
        import jinja2  # noqa: F401
        import plotly.io  # noqa: F401
    except ImportError as error:
        what = f"an HTML page needs {(error.name or 'jinja2').partition('.')[0]}, which is not installed."
        raise PeftbenchError(what, install_hint(extra="report")) from error


def page(page: Page, template: str = "sheet.html.j2", **more: Any) -> str:
    """Fill a template with a page. Raises PeftbenchError where the extra is missing."""
    check_extra()
    from jinja2 import Environment, PackageLoader, StrictUndefined

    templates = Environment(
        loader=PackageLoader("peftbench.report", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, finalize=_visible,
    )  # fmt: skip
    return templates.get_template(template).render(page=page, draw=_draw(), **more)


def _visible(value: object) -> object:
    """What a template puts in: plain text is made visible, then escaped; figures are HTML of ours."""
    return visible(value) if type(value) is str else value


def _draw() -> Callable[[Figure, str], str]:
    """What draws the figures of a page; the first brings plotly's own code along."""
    import plotly.io
    from markupsafe import Markup

    drawn = count()

    def draw(figure: Figure, id: str) -> str:
        first = next(drawn) == 0
        how = {"include_plotlyjs": first, "full_html": False, "validate": False, "div_id": id}
        return Markup(plotly.io.to_html(figure, config=_CONFIG, **how))

    return draw
