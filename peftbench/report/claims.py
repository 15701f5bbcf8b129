"""The page of common claims, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable

from peftbench.check.claims import Claim
from peftbench.report.markdown import render
from peftbench.report.table import Table

HEAD = """# Common claims, computed

Made by `peftbench claims > results/claims.md`. Every figure is computed by the library when the page is made,
and a test compares the page with what the command prints. GB is 10⁹ bytes, as in the claims. Unless a row
says otherwise: one sequence of 2,048 tokens, gradient checkpointing, autocast, and the peak of the device
with its CUDA context. A claim is *partly* true when it holds in some of the cases."""


def claims_page(claims: Iterable[Claim]) -> str:
    """An overview, then each claim with its cases and the reason."""
    claims = list(claims)
    return "\n\n".join([HEAD, _overview(claims), *(_section(claim) for claim in claims)])


def _overview(claims: list[Claim]) -> str:
    rows = [(claim.said, str(claim.truth), claim.cases[0].computed) for claim in claims]
    return render(Table("", ("claim", "verdict", "computed, first case"), rows, "lll"))


def _section(claim: Claim) -> str:
    rows = [(case.assumptions, case.computed, "yes" if case.holds else "no") for case in claim.cases]
    table = render(Table("", ("case", "computed", "agrees"), rows, "lll"))
    return f"## {claim.said}\n\nCommonly heard: {claim.heard}.\n\n{table}\n\n**{claim.truth}**. {claim.why}"
