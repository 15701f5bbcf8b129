"""What of a device its kernels' own tensors depend on, and those that depend on more than their operands."""

from collections.abc import Iterable
from typing import NamedTuple

WARP = 32
"""Threads of a block of a reduction that have outputs of their own."""
FEWEST_ROWS, MOST_ROWS = 64, 1024
"""What a block takes of the rows."""


class Device(NamedTuple):
    """The device of a tape."""

    is_cuda: bool
    """CUDA's kernels run."""
    half_to_float: bool
    """16-bit numbers are float16, and one kernel reads them and writes float32; bfloat16 is cast first."""
    rows: int = 0
    """Tokens of the step, which a vector's gradient is summed over; 0 where no vector is trained."""
    reducing_blocks: int = 0
    """Blocks of 128 threads that run at once."""

    def partial_sums_bytes(self, outputs: int) -> int:
        """What the gradient of a vector sets aside while it is summed."""
        return partial_sums_bytes(self.rows, outputs, self.reducing_blocks)


ON_CPU = Device(is_cuda=False, half_to_float=False)


def partial_sums_bytes(rows: int, outputs: int, reducing_blocks: int) -> int:
    """Bytes that a card sets aside to sum so many rows of so many floats by several blocks; 0 where one does.

    `reducing_blocks` of 128 threads run at once. What is set aside is 128 times what is used. Source: setReduceConfig
    and ReduceConfig::global_memory_size in ATen/native/cuda/Reduce.cuh of torch 2.13.
    """
    loaded, blocks = _loaded(outputs), _blocks(outputs)
    if -(-rows // 4) < 256 or blocks > reducing_blocks or outputs < loaded * WARP:
        return 0
    split = max(min(-(-reducing_blocks // blocks), -(-rows // FEWEST_ROWS)), -(-rows // MOST_ROWS))
    return 4 * outputs * split * loaded * WARP if split > 1 else 0


def _loaded(outputs: int) -> int:
    """Numbers that a thread reads at once."""
    return next(width for width in (4, 2, 1) if outputs % width == 0)


def _blocks(outputs: int) -> int:
    """Blocks beside each other, which have outputs of their own."""
    return -(-outputs // (_loaded(outputs) * WARP))


def reducing_as(reducing_blocks: int, rows: int, widths: Iterable[int]) -> int:
    """The least number of blocks at once with the same partial sums of all these widths, for cards to share a run."""
    least = 0
    for blocks in map(_blocks, widths):
        if blocks <= reducing_blocks:
            split = min(-(-reducing_blocks // blocks), -(-rows // FEWEST_ROWS))
            least = max(least, blocks, (split - 1) * blocks + 1)
    return least


def rows_as(tokens: int) -> int:
    """The least number of rows with the same partial sums, for one run of the tape to serve all of them."""
    return 0 if -(-tokens // 4) < 256 else -(-tokens // FEWEST_ROWS) * FEWEST_ROWS
