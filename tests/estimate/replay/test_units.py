"""Which blocks of a stretch are replayed one by one, which are counted, and which may be left out."""

from peftbench.base.units import KIB, MIB
from peftbench.estimate.replay.units import thinned, unit_of
from peftbench.estimate.tape.played import Played
from peftbench.memory import Part


def test_what_passes_before_something_stays_is_left_out():
    assert thinned((0, ~0, 1, 2, ~1)) == (1, 2, ~1)
    assert thinned((0, 1, ~1, ~0)) == ()


def test_what_goes_and_did_not_come_is_kept():
    assert thinned((0, ~7, ~0)) == (~7,)


def test_large_blocks_are_numbered_and_small_ones_counted():
    blocks = ((MIB, 0, 1, Part.ACTIVATIONS), (0, 0, 200 * KIB, Part.ACTIVATIONS), (0, 1, 0, Part.WORKSPACE))
    unit = unit_of(Played(blocks, (0, 1, ~1, 2), (), (~0, ~2), -1, 3, -1), tokens=2, length=10)
    assert unit.sizes == (2 * MIB + 1, 200 * KIB, 20)
    assert (unit.forward.whole, unit.forward.thin) == ((0,), (0,))
    assert (unit.forward.small_bytes, unit.forward.small_peak_bytes) == (512, 200 * KIB)
    assert unit.backward.small_bytes == -512


def test_gradients_of_weights_are_left_apart_from_what_the_loop_holds():
    blocks = ((0, 0, 3 * MIB, Part.GRADIENTS), (2 * MIB, 0, 0, Part.LOGITS), (0, 0, 4 * MIB, Part.GRADIENTS))
    unit = unit_of(Played(blocks, (1,), (), (0, 2, ~2), -1, 5, -1), tokens=1, length=1)
    assert (unit.gradients.numbers, unit.held.numbers, unit.passing.numbers) == ((0,), (1,), (2,))
