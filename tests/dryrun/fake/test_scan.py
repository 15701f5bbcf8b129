"""The loop of the selective scan, run at once, beside transformers' own on real tensors."""

from __future__ import annotations

import inspect

import pytest

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]
torch = pytest.importorskip("torch")
modeling = pytest.importorskip("transformers.models.mamba.modeling_mamba")

from oracle.live_bytes import LiveBytes  # noqa: E402

from peftbench.dryrun.fake.scan import _selective_scan  # noqa: E402

CHANNELS, TOKENS, STATES = 32, 64, 16


def kept_bytes(scan: object, dtype: object) -> tuple[int, object]:
    """What lives after forward, and the output's shape and dtype."""

    def wide(*shape: int) -> object:
        return torch.randn(*shape, requires_grad=True)

    hidden, dt, gate = (torch.randn(2, CHANNELS, TOKENS, dtype=dtype, requires_grad=True) for _ in range(3))
    B, C = (torch.randn(2, STATES, TOKENS, dtype=dtype, requires_grad=True) for _ in range(2))
    with LiveBytes() as live:
        out = scan(  # type: ignore[operator]
            hidden, dt, wide(CHANNELS, STATES), B, C, D=wide(CHANNELS), z=gate, delta_bias=wide(CHANNELS),
            delta_softplus=True,
        )  # fmt: skip
        kept = live.live
    out.sum().backward()
    assert all(each.grad is not None for each in (hidden, dt, B, C))
    return kept, (out.shape, out.dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_as_much_is_kept_as_by_the_loop(dtype: object) -> None:
    original = inspect.unwrap(modeling.mamba_selective_scan)
    (expected, like), (found, made) = kept_bytes(original, dtype), kept_bytes(_selective_scan, dtype)
    assert made == like
    assert found == pytest.approx(expected, rel=0.01)
