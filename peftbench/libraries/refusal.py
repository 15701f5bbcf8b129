"""The one error for what the libraries will not do: what that is, and what to type instead."""

from __future__ import annotations

from peftbench.base.errors import PeftbenchError


class Refused(PeftbenchError):
    """The libraries, or the dry run itself, will not run this workload; the estimate may still know it."""


def in_a_line(error: BaseException) -> str:
    """What a library says, short enough for a message."""
    return " ".join(str(error).split())[:300] or type(error).__name__
