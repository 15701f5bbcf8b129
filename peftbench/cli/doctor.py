"""`peftbench doctor`: what can be measured here, what is missing, and the command that mends it."""

from __future__ import annotations

import click

from peftbench.cli.answer.lists import format_option, write


@click.command("doctor", short_help="Say what can be measured here, and what is missing.")
@format_option
def doctor(format_: str) -> None:
    """Look at the libraries, the cards and this machine: what works, what is limited, what mends it.

    It changes nothing, and what is missing is no failure: the exit code is 0.
    """
    from peftbench.measure.doctor import diagnose
    from peftbench.report.lists.doctor import doctor_data, doctor_note, doctor_table

    findings = diagnose()
    write(doctor_table(findings), doctor_data(findings), doctor_note(findings), format_)
