"""Traces made by hand: a small training run, and random ones for properties."""

from __future__ import annotations

from hypothesis import strategies as st

from peftbench.base.units import KIB, MIB
from peftbench.dryrun.trace.trace import EMPTY_CACHE, Block, Mark, Trace
from peftbench.memory import Part, Phase

TRAINING = (Phase.FORWARD, Phase.BACKWARD, Phase.STEP)
FACTS = {
    "num_parameters": 1000, "trainable_parameters": 10, "saved_bytes": 40, "attention": {}, "device": "cuda",
    "vocab_size": 100,
}  # fmt: skip


class Tape:
    """Writes a trace down."""

    def __init__(self) -> None:
        self.trace = Trace(facts=dict(FACTS))

    def mark(self, name: str, step: int = 0) -> None:
        self.trace.marks.append(Mark(len(self.trace.events), step, str(name)))

    def take(self, size: int, part: Part, module: str = "", operation: str = "aten::mm", shape: str = "4,4") -> int:
        number = len(self.trace.blocks)
        self.trace.blocks.append(Block(size, part, module, operation, shape, "float32"))
        self.trace.events.append(number)
        return number

    def drop(self, *numbers: int) -> None:
        self.trace.events += [~number for number in numbers]


def training_run(steps: int = 2, layers: int = 3, flush: bool = False) -> Trace:
    """Weights, then in every step activations layer by layer, logits at the peak, gradients and optimizer states."""
    tape = Tape()
    tape.mark(Phase.LOAD)
    for layer in range(layers):
        tape.take(8 * MIB, Part.WEIGHTS, f"model.layers.{layer}.mlp", "loading", "1024,4096")
    tape.take(2 * MIB, Part.ADAPTERS, "model.layers.0.lora_A", "loading")
    for step in range(steps):
        _step(tape, step, layers)
        if flush:
            tape.mark(EMPTY_CACHE, step)
    return tape.trace


def _step(tape: Tape, step: int, layers: int) -> None:
    tape.mark(Phase.FORWARD, step)
    kept = [tape.take(4 * MIB, Part.ACTIVATIONS, f"model.layers.{layer}") for layer in range(layers)]
    logits = tape.take(24 * MIB, Part.LOGITS, "lm_head", shape="64,98304")
    tape.mark(Phase.BACKWARD, step)
    gradient = tape.take(24 * MIB, Part.LOGITS, "", "aten::_log_softmax_backward_data", "64,98304")
    tape.drop(logits, gradient)
    gradients = tape.take(2 * MIB, Part.GRADIENTS, "model.layers.0.lora_A")
    tape.drop(*kept)
    tape.mark(Phase.STEP, step)
    if step == 0:
        tape.take(6 * MIB, Part.OPTIMIZER, "", "aten::zeros_like")
    tape.drop(gradients)


def inference_run(tokens: int = 40) -> Trace:
    """A prompt, then one step a token; the prompt is the peak."""
    tape = Tape()
    tape.mark(Phase.LOAD)
    tape.take(8 * MIB, Part.WEIGHTS, "model.layers.0.mlp", "loading")
    tape.mark(Phase.PREFILL)
    tape.drop(tape.take(9 * MIB, Part.ACTIVATIONS, "model.layers.0"))
    for token in range(tokens):
        tape.mark(Phase.DECODE, token)
        tape.take(64 * KIB, Part.KV_CACHE, "model.layers.0.self_attn", "aten::cat")
        tape.drop(tape.take(MIB, Part.ACTIVATIONS, "model.layers.0"))
    return tape.trace


SIZES = st.one_of(st.integers(0, 4 * KIB), st.integers(MIB // 2, 40 * MIB))


@st.composite
def random_traces(draw: st.DrawFn) -> Trace:
    """Any order of allocations and frees, in a few steps, some of them with an emptied cache before."""
    tape, live = Tape(), []
    tape.mark(Phase.LOAD)
    tape.take(draw(SIZES) + 1, Part.WEIGHTS, "model.layers.0", "loading")
    for step in range(draw(st.integers(1, 3))):
        if draw(st.booleans()):
            tape.mark(EMPTY_CACHE, step)
        for phase in TRAINING:
            tape.mark(phase, step)
            for _ in range(draw(st.integers(0, 12))):
                if live and draw(st.booleans()):
                    tape.drop(live.pop(draw(st.integers(0, len(live) - 1))))
                else:
                    part = draw(st.sampled_from((Part.ACTIVATIONS, Part.LOGITS, Part.GRADIENTS)))
                    live.append(tape.take(draw(SIZES), part, f"model.layers.{draw(st.integers(0, 2))}.mlp"))
    return tape.trace
