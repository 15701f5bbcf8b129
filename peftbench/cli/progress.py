"""A progress bar on stderr for what takes longer than two seconds, where a person is watching."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from peftbench.base.screen import redraw
from peftbench.base.visible import shown

PATIENCE_S = 2.0
WIDTH = 30


class Progress:
    """Call it with the share that is done; it clears its line at the end."""

    def __init__(self, label: str, remark: str = "", patience_s: float = PATIENCE_S) -> None:
        self.label, self.remark, self.patience_s = shown(label), remark, patience_s
        self.began_s = time.monotonic()
        self.widest = 0
        self.watched = sys.stderr is not None and sys.stderr.isatty()

    def __enter__(self) -> Progress:
        return self

    def __call__(self, share: float) -> None:
        elapsed_s = time.monotonic() - self.began_s
        if self.watched and elapsed_s >= self.patience_s:
            full = round(WIDTH * share)
            bar = "#" * full + "-" * (WIDTH - full)
            text = f"{self.label}  [{bar}] {share:4.0%}  {elapsed_s:.0f} s  {self.remark}".rstrip()
            redraw(text.ljust(self.widest))
            self.widest = max(self.widest, len(text))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trail: TracebackType | None
    ) -> None:
        if self.widest:
            redraw(" " * self.widest)
            redraw("")
