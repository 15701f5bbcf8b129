"""The answer of `plan --max`: how far an option can be raised for each recipe on each card."""

from __future__ import annotations

from typing import NamedTuple

from peftbench.decide.plan.largest import Largest
from peftbench.decide.plan.plan import Plan
from peftbench.report.format.sheet import UNKNOWN, Note, Page, Row, Sheet, Table
from peftbench.report.format.terminal import Style, labelled, render
from peftbench.report.plan import views
from peftbench.report.plan.document import SCHEMA_VERSION
from peftbench.report.plan.header import DOT, assumptions, model_title
from peftbench.report.plan.screens import cards_title, headline, recipe_header

MEANT = "the first figure fits with the whole band of what is predicted; up to the one in brackets is expected to fit."


class Maximum(NamedTuple):
    """One plan, and how far its option goes."""

    plan: Plan
    largest: Largest

    @property
    def line(self) -> str:
        """The word, the need and what is left with the largest value that fits."""
        where = self.plan.summary_subject
        return self.largest.verdict.line(f"{where} at {self.largest.option} {self.largest.value}")


def maxima_sheet(found: list[Maximum]) -> Sheet:
    """Every maximum, in the order of the plans; the terminal shows the recipe as other answers do."""
    return Sheet(
        lambda: _page(found), lambda: _document(found), lambda: _rows(found), lambda style: _screen(found, style)
    )


def _screen(found: list[Maximum], style: Style) -> str:
    plans, usual, lowered = _plans(found)
    header = recipe_header(usual, cards_title(plans), style)
    notes = "\n".join(labelled("note", note, style.width) for note in (*_notes(found), *lowered))
    lines = "\n".join(headline(line, style) for line in _lines(found))
    return "\n\n".join((lines, header, render(_table(found), style.width), *([notes] if notes else ())))


def _page(found: list[Maximum]) -> Page:
    plans, usual, lowered = _plans(found)
    title, *lines = _lines(found)
    lead = [*lines, model_title(plans[0].model), DOT.join(assumptions(usual))]
    return Page([_table(found)], [Note(note) for note in (*_notes(found), *lowered)], title, lead)


def _plans(found: list[Maximum]) -> tuple[list[Plan], list[Plan], list[str]]:
    plans = [each.plan for each in found]
    return plans, *views.usual(plans)


def _lines(found: list[Maximum]) -> list[str]:
    """A line a method on one card; of several cards the one that goes farthest with each."""
    best: dict[str, Maximum] = {}
    for each in found:
        known = best.setdefault(each.plan.method, each)
        if (each.largest.fits, each.largest.expected) > (known.largest.fits, known.largest.expected):
            best[each.plan.method] = each
    return [each.line for each in sorted(best.values(), key=lambda each: each.largest.verdict.fit.rank)]


def _table(found: list[Maximum]) -> Table:
    """By card and method; what is expected stands in brackets where it is more."""
    methods = list(dict.fromkeys(each.plan.method for each in found))
    cells = {(each.plan.gpu, each.plan.method): _cell(each.largest) for each in found}
    cards = dict.fromkeys(each.plan.gpu for each in found)
    rows = [(gpu.name if gpu else "", *(cells.get((gpu, method), UNKNOWN) for method in methods)) for gpu in cards]
    option = found[0].largest.option.removeprefix("--")
    return Table("", (f"largest {option}", *methods), rows, "l" + "r" * len(methods))


def _cell(largest: Largest) -> str:
    more = f" ({largest.expected})" if largest.expected > largest.fits else ""
    return f"{largest.fits or UNKNOWN}{more}"


def _notes(found: list[Maximum]) -> list[str]:
    """What the figures mean, and where not the memory but the model ends the search."""
    notes = [MEANT] if any(each.largest.expected > each.largest.fits for each in found) else []
    for positions in dict.fromkeys(each.largest.positions for each in found):
        ended = [each for each in found if positions and each.largest.expected == positions == each.largest.positions]
        if ended:
            name = ended[0].plan.model.name
            more = [f"{each.largest.beyond:,} tokens would fit {each.plan.summary_subject}"
                    for each in ended if each.largest.beyond]  # fmt: skip
            beyond = f" With scaled positions (RoPE) {'; '.join(more)}." if more else ""
            notes.append(f"{positions:,} tokens are all that {name} has positions for.{beyond}")
    return notes


# ── for programs ────────────────────────────────────────────────────────────────────────────────────────────────────


def _document(found: list[Maximum]) -> object:
    plan, largest = found[0]
    option = largest.option.removeprefix("--").replace("-", "_")
    rows = [_row(each) for each in found]
    return {"schema_version": SCHEMA_VERSION, "model": plan.model.name, "option": option, "maxima": rows}


def _rows(found: list[Maximum]) -> tuple[tuple[str, ...], list[Row]]:
    rows: list[Row] = [{"model": each.plan.model.name, **_row(each)} for each in found]
    return tuple(rows[0]), rows


def _row(each: Maximum) -> dict[str, object]:
    """What fits, what is expected to, and the verdict on the first of them, or else the second, or 1."""
    plan, largest, verdict = each.plan, each.largest, each.largest.verdict
    return {
        "gpu": plan.gpu.name if plan.gpu else None, "gpus": plan.recipe.parallelism.gpus, "method": plan.method,
        "fits": largest.fits, "expected": largest.expected, "positions": largest.positions,
        "beyond_positions": largest.beyond, "value": largest.value, "fit": verdict.fit.value,
        "required_bytes": verdict.required_bytes, "high_bytes": verdict.high_bytes,
        "usable_bytes": verdict.usable_bytes, "headroom_bytes": verdict.headroom_bytes,
    }  # fmt: skip
