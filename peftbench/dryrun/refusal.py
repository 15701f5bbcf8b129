"""The one error that the dry run's child process sends back: what cannot be run, and what to type instead."""

from __future__ import annotations

from peftbench.errors import PeftbenchError


class Refused(PeftbenchError):
    """The libraries, or the dry run itself, will not run this workload; the estimate may still know it."""
