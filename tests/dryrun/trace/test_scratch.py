"""What kernels of a card allocate inside, by the arguments that a dry run sees."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
for name in ("transformers", "peft", "bitsandbytes"):
    pytest.importorskip(name)

from peftbench.dryrun.trace.scratch import SCRATCH  # noqa: E402


def tensor(*shape: int, dtype: Any = torch.float32) -> Any:
    return torch.empty(shape, dtype=dtype, device="meta")


SCORES = (1, 2, 8, 8)
NARROW, WIDE = (tensor(1, 2, 8, width, dtype=torch.float16) for width in (128, 256))
FULL = tensor(1, 2, 8, 64)
CASES: dict[str, tuple[str, tuple[Any, ...], list[int]]] = {
    "the product of gradient and output, of a softmax from float16 to float32": (
        "aten::_softmax_backward_data", (tensor(*SCORES), tensor(*SCORES), -1, torch.float16), [4 * 128],
    ),
    "the same in 16 bit": (
        "aten::_softmax_backward_data",
        (tensor(*SCORES, dtype=torch.bfloat16), tensor(*SCORES, dtype=torch.bfloat16), -1, torch.bfloat16), [2 * 128],
    ),
    "a softmax and a mask, from which the result is chosen": (
        "aten::_safe_softmax", (tensor(*SCORES), -1), [4 * 128, 128],
    ),
    "partial sums of a vector's gradient, 32 blocks a sum": (
        "aten::sum", (tensor(2, 1024, 4096, dtype=torch.float16), [0, 1], True), [4 * 4096 * 32 * 128],
    ),
    "as many as run at once": ("aten::sum", (tensor(8192, 14336), [0]), [4 * 14336 * 16 * 128]),
    "few rows": ("aten::sum", (tensor(1020, 4096), [0]), [0]),
    "a mean along rows": ("aten::mean", (tensor(2, 2048, 4096), [-1], True), []),
    "a sum of all": ("aten::sum", (tensor(2048, 4096),), []),
    "a number for each chunk of a tensor, as many as the largest has": (
        "aten::_foreach_norm", ([tensor(16), tensor(65_537)],), [4 * 2 * 2],
    ),
    "prefix sums, and an expanded mask": (
        "aten::masked_scatter", (tensor(4, 8), tensor(4, 1, dtype=torch.bool), tensor(8)), [8 * 32, 32],
    ),
    "a copy of a matrix whose rows and columns are apart": (
        "aten::bmm", (tensor(2, 4, 8), tensor(8, 4, 2).permute(2, 0, 1)), [4 * 64],
    ),
    "none of a transposed one": ("aten::mm", (tensor(4, 8), tensor(16, 8).t()), []),
    "a work area of a transform in two dimensions": (
        "aten::_fft_c2c", (tensor(16, 8, dtype=torch.complex64), [0, 1], 2, False), [8 * 128],
    ),
    "none that is known in one": ("aten::_fft_c2c", (tensor(16, 8, dtype=torch.complex64), [1], 0, True), []),
    "an output that registers hold": ("aten::_scaled_dot_product_efficient_attention", (NARROW, NARROW, NARROW), []),
    "a float32 accumulator of a wide output": (
        "aten::_scaled_dot_product_efficient_attention", (WIDE, WIDE, WIDE), [4 * 16 * 256],
    ),
    "row sums and a float32 accumulator of dQ, in whole blocks": (
        "aten::_scaled_dot_product_efficient_attention_backward", (NARROW, NARROW, NARROW, NARROW),
        [4 * 16, 4 * 2 * 128 * 128],
    ),
    "a float32 product, its row sums and their copy": (
        "aten::_scaled_dot_product_efficient_attention_backward", (FULL, FULL, FULL, FULL),
        [4 * 16 * 64, 4 * 16, 4 * 16],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bytes_inside_of_a_kernel(case: str) -> None:
    operation, arguments, expected = CASES[case]
    assert SCRATCH[operation][1](arguments, {}) == expected
