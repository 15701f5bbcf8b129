"""Time the variants in rounds: each runs once a round, in an order that is shuffled anew, so that all meet the same
machine."""

from __future__ import annotations

import contextlib
import gc
import inspect
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from peftbench.libraries.model import causal_lm_of

WARM_UP = 2
"""Rounds before those that are timed."""
ASK_EVERY = 5
"""Rounds between two looks at the intervals: one at every round would stop at lucky moments."""


class Timing(NamedTuple):
    """One prefill and the decoding after it, in seconds; those of the CPU are None on a card."""

    prefill_s: float
    """To the first token."""
    decode_s: float
    """Mean time of one token."""
    prefill_cpu_s: float | None
    decode_cpu_s: float | None


Timings = dict[str, list[Timing]]
"""Times of every variant; those at one place are from one round."""


class Request(NamedTuple):
    """What every variant is asked for."""

    prompt: torch.Tensor
    """Token ids: (batch size, prompt tokens)."""
    new_tokens: int
    """Passes of one token each, after the prefill."""

    @property
    def on_card(self) -> bool:
        """Whether it runs on a CUDA card."""
        return self.prompt.device.type == "cuda"


Spans = tuple[tuple[float, float | None], tuple[float, float | None]]
"""Wall time and CPU time in seconds: from the beginning to the first token, and from there to the last."""


class HostClock:
    """Wall time, and the time that this process had the CPU, which others on the machine hardly change."""

    def __init__(self) -> None:
        self._marks: list[tuple[float, float]] = []

    def mark(self) -> None:
        """Both clocks, now."""
        self._marks.append((time.perf_counter(), time.process_time()))

    def spans(self) -> Spans:
        """Between the three marks."""
        first, second, third = self._marks
        return (second[0] - first[0], second[1] - first[1]), (third[0] - second[0], third[1] - second[1])


class CardClock:
    """CUDA events: the card notes when it reaches each mark, while the host is ahead of it."""

    def __init__(self) -> None:
        self._events: list[torch.cuda.Event] = []
        torch.cuda.synchronize()

    def mark(self) -> None:
        """After all that was launched so far."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._events.append(event)

    def spans(self) -> Spans:
        """Between the three marks, once the card has passed them."""
        torch.cuda.synchronize()
        first, second, third = self._events
        return (first.elapsed_time(second) / 1e3, None), (second.elapsed_time(third) / 1e3, None)


def run_once(model: Any, request: Request, mark: Callable[[], None]) -> None:
    """A prefill and the decoding after it, with a KV cache, as generate() does them; the likeliest token is taken."""
    can_keep = "logits_to_keep" in inspect.signature(causal_lm_of(model).forward).parameters
    last_only = {"logits_to_keep": 1} if can_keep else {}
    with torch.no_grad():
        mark()
        output = model(input_ids=request.prompt, use_cache=True, **last_only)
        token = output.logits[:, -1:].argmax(-1)
        mark()
        for _ in range(request.new_tokens):
            output = model(input_ids=token, past_key_values=output.past_key_values, use_cache=True)
            token = output.logits[:, -1:].argmax(-1)
        mark()


def timed(model: Any, request: Request) -> Timing:
    """One run."""
    clock: CardClock | HostClock = CardClock() if request.on_card else HostClock()
    run_once(model, request, clock.mark)
    (prefill_s, prefill_cpu_s), (decode_s, decode_cpu_s) = clock.spans()
    each_cpu_s = None if decode_cpu_s is None else decode_cpu_s / request.new_tokens
    return Timing(prefill_s, decode_s / request.new_tokens, prefill_cpu_s, each_cpu_s)


def orders(names: Sequence[str], seed: int) -> Iterator[tuple[str, ...]]:
    """Without end: every name once, in an order that the seed decides."""
    chance, order = random.Random(seed), list(names)
    while True:
        chance.shuffle(order)
        yield tuple(order)


def run_rounds(
    models: Mapping[str, Any], request: Request, seed: int, rounds: int, most_rounds: int,
    enough: Callable[[Timings], bool], progress: Callable[[float], None],
) -> Timings:  # fmt: skip
    """At least `rounds` and at most `most_rounds`, until there is enough. A name may share its model with another."""
    found: Timings = {name: [] for name in models}
    shuffled = orders(tuple(models), seed)
    for _ in range(WARM_UP):
        for name in next(shuffled):
            timed(models[name], request)
    with _no_collector():
        for number in range(1, most_rounds + 1):
            for name in next(shuffled):
                found[name].append(timed(models[name], request))
            gc.collect()
            progress(min(number / rounds, 1.0))
            if number >= rounds and (number - rounds) % ASK_EVERY == 0 and enough(found):
                break
    return found


@contextlib.contextmanager
def _no_collector() -> Iterator[None]:
    """Python's garbage collector runs between rounds only, and does not look at the models."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
