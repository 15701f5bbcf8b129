"""The page of common claims, as Markdown, and the published times that the formula for latency is judged by."""

from __future__ import annotations

from collections.abc import Iterable

from peftbench.check.claims.claims import Claim
from peftbench.check.speed.published_latency import PricedRow, median_factor
from peftbench.report.format.markdown import render
from peftbench.report.format.sheet import Column, Table, tabled

HEAD = """# Common claims, computed

Made by `peftbench claims > results/claims.md`. Every figure is computed by the library when the page is made, or is one
of the published figures in peftbench/catalog/published_quality.csv and published_latency.csv, with its source; a test
compares the page with what the command prints. GB is 10⁹ bytes, as in the claims. Unless a row
says otherwise: one sequence of 2,048 tokens, gradient checkpointing, autocast, and the peak of the device
with its CUDA context. A claim is *partly* true when it holds in some of the cases."""


def claims_page(claims: Iterable[Claim], times: Iterable[PricedRow], left_out: Iterable[PricedRow]) -> str:
    """An overview, each claim with its cases and the reason, and expected beside published times.

    `left_out` are the times that were priced without the figures of their own publisher.
    """
    claims = list(claims)
    rows = [(claim.said, str(claim.truth), claim.cases[0].computed) for claim in claims]
    overview = render(Table("", ("claim", "verdict", "computed, first case"), rows, "lll"))
    return "\n\n".join([HEAD, overview, *map(_section, claims), _latency(list(times), list(left_out))])


def _section(claim: Claim) -> str:
    rows = [(case.assumptions, case.computed, "yes" if case.holds else "no") for case in claim.cases]
    table = render(Table("", ("case", "computed", "agrees"), rows, "lll"))
    return f"## {claim.said}\n\nCommonly heard: {claim.heard}.\n\n{table}\n\n**{claim.truth}**. {claim.why}"


def _form(each: PricedRow) -> str:
    row = each.row
    return ", ".join(filter(None, (row.phase, row.weights, row.route if row.route != "base" else "", row.adapter)))


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.1f}"


TIMES = (
    Column("model", lambda each: each.row.model), Column("card", lambda each: each.row.gpu), Column("form", _form),
    Column("published, ms", lambda each: each.row.seconds, _milliseconds, "r"),
    Column("expected, ms", lambda each: each.expected_s, _milliseconds, "r"),
    Column("expected / published", lambda each: f"{each.ratio:.2f}" if each.ratio else each.why_not),
)  # fmt: skip


def _latency(times: list[PricedRow], left_out: list[PricedRow]) -> str:
    priced = [row for row in times if row.factor]
    summary = (
        f"{len(priced)} of {len(times)} published times could be priced: half of them within {_spread(priced)}. With "
        f"the costs of the host derived from other publishers alone, where there are any ({len(left_out)} times): half "
        f"within {_spread(left_out)}. All of them are bound by launches, so the shares of bandwidth and of arithmetic "
        "that the formula assumes are not judged here."
    )
    return f"## Expected beside published latency\n\n{summary}\n\n{render(tabled(TIMES, times))}"


def _spread(rows: list[PricedRow]) -> str:
    return f"× {median_factor(rows):.2f}, all within × {max(row.factor or 1 for row in rows):.2f}"
