"""Optimizer bytes: published figures and rules that must hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftbench.base.errors import SpecError
from peftbench.estimate.parts.optimizer import OPTIMIZERS, optimizer_bytes
from peftbench.estimate.parts.tensors import TensorGroup, total_bytes, total_numel
from peftbench.inputs.recipe import DType

SHAPES = st.tuples(st.integers(1, 3000), st.integers(1, 300))
GROUP = st.builds(TensorGroup, st.just("q_proj"), SHAPES, st.integers(1, 4), st.sampled_from(list(DType)))
GROUPS = st.lists(GROUP, max_size=4)


def one(shape, count=1, dtype=DType.BFLOAT16):
    return (TensorGroup("q_proj", shape, count, dtype),)


def test_full_bf16_adamw_peaks_at_ten_bytes_a_parameter():
    """fms-acceleration measured, with foreach AdamW, 6.00 B a parameter at rest and 10.00 at the peak."""
    weights = one((4096, 4096), 400)
    held = optimizer_bytes(weights, "adamw_torch")
    at_rest = total_bytes(weights) + held.state_bytes
    assert at_rest == 6 * total_numel(weights)
    assert at_rest + total_bytes(weights) + held.step_temporary_bytes == 10 * total_numel(weights)


def test_fp32_adapter_costs_twelve_bytes_a_parameter_at_rest():
    """fms-acceleration: a float32 LoRA adapter with AdamW takes 12 B a parameter (weight and two states)."""
    adapter = one((16, 4096), 128, DType.FLOAT32)
    states = optimizer_bytes(adapter, "adamw_torch_fused").state_bytes
    assert total_bytes(adapter) + states == 12 * total_numel(adapter)


def test_8bit_adamw_is_two_bytes_and_a_thirty_second():
    """Dettmers et al. 2022: one byte a state, and one float32 absmax per block, here of 256."""
    held = optimizer_bytes(one((4096, 4096), 10), "adamw_bnb_8bit")
    numel = 10 * 4096 * 4096
    assert held.state_bytes == numel * (2 + 2 * 4 / 256) + 2048
    assert held.step_temporary_bytes == held.paged_bytes == 0


def test_paging_takes_large_states_off_the_card():
    held = optimizer_bytes(one((1000, 100)) + one((999, 100)), "paged_adamw_32bit")
    assert (held.paged_bytes, held.state_bytes) == (800_000, 799_200)


def test_small_tensors_keep_32_bit_states():
    assert optimizer_bytes(one((4095,)), "lion_8bit").state_bytes == 4 * 4095


@pytest.mark.parametrize("name", ["galore_adamw", "adamw", "paged_adam_8bit", ""])
def test_other_names_are_refused(name):
    with pytest.raises(SpecError, match="Choose one of adamw_torch"):
        optimizer_bytes((), name)


@given(st.sampled_from(OPTIMIZERS), GROUPS, GROUPS)
def test_states_add_up_and_never_shrink(name, some, more):
    a, b, both = (optimizer_bytes(tuple(t), name) for t in (some, more, some + more))
    held = [x.state_bytes + x.paged_bytes for x in (a, b, both)]
    assert 0 <= held[0] + held[1] - held[2] <= 2048  # the shared quantization maps
    assert both.step_temporary_bytes >= max(a.step_temporary_bytes, b.step_temporary_bytes)
