"""A transform of a weight's change: what it allocates beside its result, on a card and on a CPU."""

from __future__ import annotations

import pytest

from peftbench.estimate.forward.kernels import ON_CUDA
from peftbench.estimate.peft_forward.changed_weights import _inverse_transform
from peftbench.estimate.tape.autograd import Tape
from peftbench.estimate.tape.device import ON_CPU, Device
from peftbench.estimate.tape.ledger import Ledger


@pytest.mark.parametrize(("device", "expected"), [(ON_CUDA, 4 + 3 * 8), (ON_CPU, 4 + 2 * 8)])
def test_cufft_has_a_work_area(device: Device, expected: int) -> None:
    """A float32 spectrum, its complex copy and the transform; on CUDA a work area too."""
    tape = Tape(Ledger(), device=device)
    _inverse_transform(tape, 1, 0)
    assert max(moment.fixed for moment in tape.ledger.take_moments()) == expected
