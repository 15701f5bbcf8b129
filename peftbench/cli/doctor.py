"""`peftbench doctor`: what can be measured here, what is missing, and the command that mends it."""

from __future__ import annotations

import click

from peftbench.cli.ask.format_option import format_option, show


@click.command("doctor", short_help="Say what can be measured here, and what is missing.")
@format_option
def doctor(format_: str) -> None:
    """Look at the libraries, the cards and this machine: what works, what is limited, what mends it.

    It changes nothing, and what is missing is no failure: the exit code is 0.
    """
    from peftbench.measure.doctor import diagnose
    from peftbench.report.lists.known import doctor_sheet

    show(doctor_sheet(diagnose()), format_)
