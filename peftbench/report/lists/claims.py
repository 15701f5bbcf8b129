"""The page of common claims, as Markdown, and the published times that the formula for latency is judged by."""

from __future__ import annotations

from collections.abc import Iterable

from peftbench.check.claims.claims import Claim
from peftbench.check.speed.published_latency import PricedRow, median_factor
from peftbench.report.format.markdown import render
from peftbench.report.format.sheet import UNKNOWN, Table

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
    sections = (_section(claim) for claim in claims)
    return "\n\n".join([HEAD, _overview(claims), *sections, _latency(list(times), list(left_out))])


def _overview(claims: list[Claim]) -> str:
    rows = [(claim.said, str(claim.truth), claim.cases[0].computed) for claim in claims]
    return render(Table("", ("claim", "verdict", "computed, first case"), rows, "lll"))


def _section(claim: Claim) -> str:
    rows = [(case.assumptions, case.computed, "yes" if case.holds else "no") for case in claim.cases]
    table = render(Table("", ("case", "computed", "agrees"), rows, "lll"))
    return f"## {claim.said}\n\nCommonly heard: {claim.heard}.\n\n{table}\n\n**{claim.truth}**. {claim.why}"


def _latency(times: list[PricedRow], left_out: list[PricedRow]) -> str:
    priced = [row for row in times if row.factor]
    rows = [
        (row.model, row.gpu, _form(each), f"{1000 * row.seconds:.1f}", *_expected(each))
        for each in times
        for row in (each.row,)
    ]
    headings = ("model", "card", "form", "published, ms", "expected, ms", "expected / published")
    summary = (
        f"{len(priced)} of {len(times)} published times could be priced: half of them within {_spread(priced)}. With "
        f"the costs of the host derived from other publishers alone, where there are any ({len(left_out)} times): half "
        f"within {_spread(left_out)}. All of them are bound by launches, so the shares of bandwidth and of arithmetic "
        "that the formula assumes are not judged here."
    )
    return f"## Expected beside published latency\n\n{summary}\n\n{render(Table('', headings, rows, 'lllrrl'))}"


def _spread(rows: list[PricedRow]) -> str:
    return f"× {median_factor(rows):.2f}, all within × {max(row.factor or 1 for row in rows):.2f}"


def _form(each: PricedRow) -> str:
    row = each.row
    parts = (row.phase, row.weights, row.route if row.route != "base" else "", row.adapter)
    return ", ".join(filter(None, parts))


def _expected(each: PricedRow) -> tuple[str, str]:
    if each.expected_s is None or each.ratio is None:
        return UNKNOWN, each.why_not
    return f"{1000 * each.expected_s:.1f}", f"{each.ratio:.2f}"
