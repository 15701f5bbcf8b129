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
