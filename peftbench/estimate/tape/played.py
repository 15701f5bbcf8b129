"""The blocks of one stretch of a step in the order in which they come and go: what an allocator is asked for."""

from typing import NamedTuple

from peftbench.estimate.tape.ledger import Ledger, Sized

NOTHING = -1
"""The number of no block."""
INPUT = 0
"""The block of a stretch's input, which is the first storage of a ledger."""
INPUT_KEY = 1
"""Its key: it is the first tensor of a tape too."""

Events = tuple[int, ...]
"""n where block n comes, ~n where it goes."""


class Played(NamedTuple):
    """What came and went while a stretch ran.

    Its input is made by the stretch before it, and the gradient of its output by the one after it: neither comes here.
    """

    blocks: tuple[Sized, ...]
    forward: Events
    released: Events
    """What goes when the forward pass of the whole model is over."""
    backward: Events
    output: int
    """The block that is the next stretch's INPUT from then on; NOTHING where this one itself saves it."""
    incoming: int
    """The gradient of its output."""
    outgoing: int
    """The gradient of its input; NOTHING for none."""


def played_of(ledger: Ledger, ends: list[int], output: int, outgoing: int) -> Played:
    """Cut a ledger's events at `ends`: where forward ends, and where what is released then has gone.

    Backward begins with the gradient of the output; the output itself goes next, if nobody saved it.
    """
    forward_end, released_end = ends
    events = ledger.events
    first = 0 if output == INPUT else 1
    incoming, *backward = events[released_end:]
    passed_on = backward[:1] == [~output]
    return Played(
        tuple(ledger.blocks), tuple(events[first:forward_end]), tuple(events[forward_end:released_end]),
        tuple(backward[passed_on:]), output if passed_on else NOTHING, incoming, outgoing,
    )  # fmt: skip
