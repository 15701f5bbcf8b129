"""A progress bar on stderr for what takes longer than two seconds, where a person is watching."""

from __future__ import annotations

import sys
import time
from types import TracebackType

import click

PATIENCE_S = 2.0
WIDTH = 30


def tell(text: str) -> None:
    """Say something on stderr that is not part of the answer."""
    click.echo(f"note  {text}", err=True)


class Progress:
    """Call it with the share that is done; it clears its line at the end."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.began_s = time.monotonic()
        self.shown = False
        self.watched = sys.stderr is not None and sys.stderr.isatty()

    def __enter__(self) -> Progress:
        return self

    def __call__(self, share: float) -> None:
        if self.watched and time.monotonic() - self.began_s > PATIENCE_S:
            full = round(WIDTH * share)
            bar = "#" * full + "-" * (WIDTH - full)
            click.echo(f"\r{self.label}  [{bar}] {share:4.0%}", nl=False, err=True)
            self.shown = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trail: TracebackType | None
    ) -> None:
        if self.shown:
            click.echo("\r" + " " * (len(self.label) + WIDTH + 10) + "\r", nl=False, err=True)
