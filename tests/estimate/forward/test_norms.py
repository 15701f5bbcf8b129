"""When the tensors of a norm go."""

from __future__ import annotations

from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.models import find_model
from peftbench.estimate.forward.kernels import kernels_of
from peftbench.estimate.forward.segments import Kind, _context
from peftbench.estimate.forward.step import step_of
from peftbench.estimate.parts.card import traits_of
from peftbench.estimate.tape.ledger import Ledger
from peftbench.estimate.tape.modules import rms_norm
from peftbench.inputs.recipe import AdapterSpec, TrainingSpec

MODEL = find_model("HuggingFaceTB/SmolLM2-135M")


def test_the_float32_product_is_a_variable_until_the_norm_returns() -> None:
    """`return self.weight * hidden_states.to(input_dtype)`: three tensors are there when the output comes."""
    training, ledger = TrainingSpec(adapter=AdapterSpec()), Ledger()
    step = step_of(MODEL, training, kernels_of(MODEL, training, traits_of(find_gpu("t4"))))
    c = _context(step, ledger, Kind(MODEL.layers[0].unmasked))
    x = c.tape.tensor(MODEL.hidden_size, 2, False)
    before = len(ledger.events)
    out = rms_norm(c, x, "input_layernorm")
    *_, product, narrow, made = (event for event in ledger.events[before:] if event >= 0)
    came, went = ledger.events.index(made), ledger.events.index(~product)
    assert x and out and ledger.blocks[product][0] == 2 * ledger.blocks[made][0]
    assert ledger.events.index(narrow) < came < went
