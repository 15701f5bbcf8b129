"""`peftbench claims`: common claims about fine-tuning memory beside what is computed."""

from __future__ import annotations

import click


@click.command("claims", short_help="Check common claims against the formulas.")
def claims() -> None:
    """Print common claims about memory as a Markdown page, with computed figures and a verdict on each."""
    from peftbench.check.claims import claims as all_claims
    from peftbench.report.claims import claims_page

    click.echo(claims_page(all_claims()))
