"""Runs the command in this process, as a shell would see it."""

from __future__ import annotations

from click.testing import CliRunner, Result

from peftbench.cli import main


def run(*arguments: str) -> Result:
    """The result of `peftbench ARGUMENTS`, in a pipe of 80 columns without colour."""
    return CliRunner().invoke(main, arguments, prog_name="peftbench", env={"COLUMNS": "80", "NO_COLOR": "1"})


def answer(*arguments: str) -> str:
    """What it prints; nothing may go wrong."""
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def refusal(*arguments: str) -> str:
    """The one message of bad input: on stderr, exit code 2, no traceback."""
    result = run(*arguments)
    assert result.exit_code == 2, (result.output, result.exception)
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert result.stderr.count("Error: ") == 1
    return result.stderr
