"""What memory-efficient attention allocates inside, for each token."""

from __future__ import annotations

from dataclasses import replace

import pytest

from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.models import find_model
from peftbench.estimate.forward.kernels import kernels_of
from peftbench.estimate.forward.mixers.attention import attention
from peftbench.estimate.forward.segments import Kind, _context
from peftbench.estimate.forward.step import step_of
from peftbench.estimate.parts.card import traits_of
from peftbench.estimate.tape.autograd import Storage
from peftbench.estimate.tape.ledger import Ledger
from peftbench.inputs.recipe import DType, TrainingSpec
from peftbench.memory import Part

T4 = find_gpu("t4")
MODEL = find_model("opt-125m")
HEADS = MODEL.num_attention_heads


def inside(head_dim: int, dtype: DType) -> tuple[int, int]:
    """Bytes of forward beyond what stays, and of backward beyond gradients, for one head and token."""
    model = replace(MODEL, head_dim=head_dim)
    training = TrainingSpec(dtype=dtype, autocast=False)
    ledger = Ledger()
    step = step_of(model, training, kernels_of(model, training, traits_of(T4)))
    c = _context(step, ledger, Kind(model.layers[0].unmasked))
    assert c.attention_kernel == "efficient"
    out = attention(c, *(c.tape.tensor(model.query_size, dtype.bytes, True) for _ in range(3)))
    forward = max(moment.per_token for moment in ledger.take_moments()) - ledger.per_token
    gradients = {out.key: Storage(ledger, Part.ACTIVATIONS, out.per_token)}
    c.tape.backward(gradients)
    sizes = [moment.by_part.get(Part.WORKSPACE, (0, 0, 0))[0] for moment in ledger.take_moments()]
    return forward // HEADS, max(sizes) // HEADS


@pytest.mark.parametrize(
    ("head_dim", "dtype", "forward", "backward"),
    [
        pytest.param(128, DType.FLOAT16, 0, 4 + 4 * 128, id="row sums and a float32 accumulator of dq"),
        pytest.param(256, DType.FLOAT16, 4 * 256, 4 + 4 * 256, id="and one of an output that registers do not hold"),
        pytest.param(128, DType.FLOAT32, 0, 4 * 128 + 2 * 4, id="the product of gradient and output, and two sums"),
        pytest.param(256, DType.FLOAT32, 0, 4 * 256 + 2 * 4, id="float32 accumulates in the output itself"),
    ],
)
def test_bytes_inside_of_the_kernel(head_dim: int, dtype: DType, forward: int, backward: int) -> None:
    """Sources are named in peftbench/estimate/forward/mixers/attention.py."""
    assert inside(head_dim, dtype) == (forward, backward)
