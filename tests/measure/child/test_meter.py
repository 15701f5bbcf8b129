"""What the CPU meter counts is what storages hold, and 4-bit weights stay what they are."""

import pytest
import torch
from torch import nn

from peftbench.base.errors import MeasureError
from peftbench.measure.child.meter import CpuMeter
from peftbench.measure.child.nf4_guard import keep_weights_as_they_are
from peftbench.memory import Phase

bitsandbytes = pytest.importorskip("bitsandbytes")


def metered(run):
    """Peaks by phase while `run` is given the meter's mark."""
    peaks = []
    meter = CpuMeter(peaks.append)
    run(meter.mark)
    meter.finish()
    return {(peak.step, peak.phase): peak for peak in peaks}


def test_tensors_are_counted_from_birth_to_death():
    def run(mark):
        mark(Phase.LOAD, 0)
        kept = torch.ones(1 << 20, dtype=torch.uint8)
        mark(Phase.FORWARD, 0)
        passing = torch.ones(3 << 20, dtype=torch.uint8)
        del passing
        mark(Phase.BACKWARD, 0)
        kept.zero_()

    found = metered(run)
    sizes = [(found[0, phase].held_bytes, found[0, phase].allocated_bytes) for phase in list(Phase)[:3]]
    assert sizes == [(0, 1 << 20), (1 << 20, 4 << 20), (1 << 20, 1 << 20)]


def test_a_step_is_what_its_storages_hold():
    """To 0.1 MB: weights, what autograd saves, gradients and states of two steps."""
    width, tokens = 512, 256
    model = nn.Sequential(nn.Linear(width, width, bias=False), nn.ReLU(), nn.Linear(width, width, bias=False))
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
    weights, row = 2 * width * width * 4, width * tokens * 4

    def run(mark):
        for step in range(2):
            mark(Phase.FORWARD, step)
            loss = model(torch.ones(tokens, width)).sum()
            mark(Phase.BACKWARD, step)
            loss.backward()
            mark(Phase.STEP, step)
            optimizer.step()
            optimizer.zero_grad()
            del loss

    found = metered(run)
    assert found[1, Phase.FORWARD].held_bytes == pytest.approx(2 * weights, abs=1e5)  # states
    assert found[1, Phase.BACKWARD].held_bytes - 2 * weights == pytest.approx(2 * row, abs=1e5)  # input, ReLU's output
    assert found[1, Phase.STEP].held_bytes == pytest.approx(3 * weights, abs=1e5)  # gradients too


# ── NF4 ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def linear(in_features, guarded):
    """A 4-bit layer as bitsandbytes makes it on a CPU with AVX512-BF16."""
    torch.manual_seed(0)
    layer = bitsandbytes.nn.Linear4bit(in_features, 64, bias=False, quant_type="nf4", compute_dtype=torch.float32)
    layer.weight.data = torch.randn(64, in_features)
    layer = layer.to("cpu")
    layer.support_avx512bf16_for_cpu = True
    if guarded:
        keep_weights_as_they_are(nn.Sequential(layer))
    return layer.eval()


def codes_after_a_pass(guarded):
    layer = linear(256, guarded)
    before = layer.weight.data.clone()
    with torch.no_grad():
        layer(torch.ones(1, 256))
    return before, layer.weight.data


def test_an_eval_pass_leaves_4_bit_weights_alone():
    before, after = codes_after_a_pass(guarded=True)
    assert before.shape == after.shape and torch.equal(before, after)


def test_without_the_guard_it_would_not():
    try:
        before, after = codes_after_a_pass(guarded=False)
    except RuntimeError:
        pytest.skip("this CPU cannot pack them")
    assert before.shape != after.shape or not torch.equal(before, after)


def test_rows_that_bitsandbytes_misreads_are_refused():
    with pytest.raises(MeasureError, match="no multiple of its block size"):
        linear(96, guarded=True)
