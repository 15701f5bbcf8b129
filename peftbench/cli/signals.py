"""SIGTERM and SIGHUP end a command as Ctrl-C does: what it has started is ended with it."""

from __future__ import annotations

import signal
import threading
from types import FrameType

import click

from peftbench.base.errors import Interrupted

_ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


def end_on_signals(ctx: click.Context) -> None:
    """Until the context is closed, raise Interrupted on a signal that would end the process without a word.

    One that is ignored stays so, as nohup asks for; threads get no signals.
    """
    if threading.current_thread() is threading.main_thread():
        for number in _ENDING:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _interrupt)
                ctx.call_on_close(lambda number=number: signal.signal(number, signal.SIG_DFL))


def _interrupt(number: int, _: FrameType | None) -> None:
    raise Interrupted(number)
