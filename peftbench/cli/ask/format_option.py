"""The option --format of every verb that answers in the formats there are, and how its answer is printed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from peftbench.base.errors import PeftbenchError
from peftbench.base.screen import put_page, say
from peftbench.report.format.writers import FORMATS, check_installed, written

if TYPE_CHECKING:
    from peftbench.report.format.sheet import Sheet


def _checked(ctx: click.Context, option: click.Parameter, format_: str) -> str:
    if not ctx.resilient_parsing:
        check_installed(format_)
    return format_


_SETTINGS: dict[str, Any] = {
    "type": click.Choice(FORMATS), "default": "terminal", "show_default": True, "callback": _checked,
    "help": "Format of the answer.",
}  # fmt: skip
FORMAT = click.Option(["--format"], **_SETTINGS)
format_option = click.option("--format", "format_", **_SETTINGS)


def show(sheet: Sheet, format_: str) -> None:
    """Print an answer; no rows of JSON Lines are no line, not an empty one."""
    print_as = put_page if format_ == "html" else say
    if text := written(sheet, format_):
        print_as(text)


def write_file(path: str, content: str | bytes, otherwise: str) -> None:
    """Write a file that was asked for; `otherwise` is the hint where that fails. Raises PeftbenchError."""
    from peftbench.base.files import write_whole  # most answers go to a screen

    try:
        write_whole(path, content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise PeftbenchError(f"cannot write {path}: {error.strerror}.", otherwise) from None
