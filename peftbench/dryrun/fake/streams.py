"""Streams and events of a card, of which only one thing matters: which stream is current when memory is asked for.

A block of the caching allocator serves the stream that it was allocated on, and no other. Nothing runs here, so there
is nothing to wait for: an event has always happened.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import torch


class Stream:
    """Stands for torch.cuda.Stream; the number 0 is that of the default stream."""

    def __init__(self, *_: object, **__: object) -> None:
        self.number = next(_NUMBERS)
        self.cuda_stream = self.number
        self.device = torch.device("cuda", 0)

    def record_event(self, *_: object) -> Event:
        """An event at this place of the stream."""
        return Event()

    def wait_stream(self, *_: object) -> None:
        """Nothing is ever under way."""

    wait_event = synchronize = wait_stream

    def query(self) -> bool:
        """Whether all is done."""
        return True

    def is_capturing(self) -> bool:
        """Whether a graph of it is being captured."""
        return False


class Event:
    """Stands for torch.cuda.Event and torch.Event."""

    def __init__(self, *_: object, **__: object) -> None:
        """As a card's, an event has no place yet."""

    def record(self, *_: object) -> Event:
        """The event itself, as torch.Event.record has it."""
        return self

    def wait(self, *_: object) -> None:
        """It has happened."""

    synchronize = wait

    def query(self) -> bool:
        """Whether it has happened."""
        return True


_NUMBERS = itertools.count()
_DEFAULT = Stream()
_current = [_DEFAULT]


def current_stream(*_: object) -> Stream:
    """The stream that work is given to now."""
    return _current[-1]


@contextlib.contextmanager
def on_stream(stream: Stream | None) -> Iterator[None]:
    """Give work to this stream; None changes nothing."""
    _current.append(stream or _current[-1])
    try:
        yield
    finally:
        _current.pop()


def set_stream(stream: Stream) -> None:
    """Give work to this stream from now on."""
    _current[-1] = stream


STREAMS: dict[str, Any] = {
    "Stream": Stream,
    "Event": Event,
    "current_stream": current_stream,
    "default_stream": lambda *_: _DEFAULT,
    "stream": on_stream,
    "set_stream": set_stream,
    "set_device": lambda *_: None,
}
"""Names of torch.cuda, and what answers to them."""
