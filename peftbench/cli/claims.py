"""`peftbench claims`: common claims about fine-tuning beside what is computed."""

from __future__ import annotations

import click


@click.command("claims", short_help="Check common claims against the formulas.")
def claims() -> None:
    """Print common claims about memory, speed and quality as a Markdown page, with figures and a verdict on each."""
    from peftbench.check.claims.effect_claims import claims as all_claims
    from peftbench.check.speed.published_latency import leave_one_out, price_rows
    from peftbench.report.lists.claims import claims_page

    click.echo(claims_page(all_claims(), price_rows(), leave_one_out()))
