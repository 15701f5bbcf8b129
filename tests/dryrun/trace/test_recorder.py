"""The recorder against real runs on the CPU: training steps as torch.profiler sees them, autograd's writes in place.

A dry run on fake CPU tensors must have the peaks of the same steps on real ones, weights included. What only the CPU's
kernels allocate is left out, by name: see cpu_steps.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]
torch = pytest.importorskip("torch")
for name in ("transformers", "peft", "bitsandbytes"):
    pytest.importorskip(name)

from dryruns.cpu_steps import (  # noqa: E402
    OPTIMIZER,
    QUESTION,
    Begin,
    allocations,
    on_lists,
    peaks,
    profiled,
    traced,
    trained,
)  # fmt: skip
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from peftbench.dryrun.runner import DryRunner  # noqa: E402
from peftbench.dryrun.trace.recorder import Recorder  # noqa: E402
from peftbench.dryrun.trace.trace import Block, Mark, Trace  # noqa: E402
from peftbench.dryrun.workload import Workload  # noqa: E402
from peftbench.inputs.recipe import AdapterSpec, DType, TrainingSpec  # noqa: E402
from peftbench.memory import Part, Phase  # noqa: E402

TOLERANCE = 1e-4
"""A hundredth of a percent: numbers of 8 bytes that kernels make of Python's."""
LARGE_BYTES = 20_000
"""Above what kernels of the CPU reduce in, below any activation."""
LENGTH = 128

# ── models and recipes ──────────────────────────────────────────────────────────────────────────────────────────────

USUAL: dict[str, object] = {
    "hidden_size": 256, "num_hidden_layers": 3, "num_attention_heads": 8, "intermediate_size": 512,
    "vocab_size": 1024, "max_position_embeddings": 512, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
GROUPED = {**USUAL, "num_key_value_heads": 4, "head_dim": 32}
EXPERTS = {"num_experts_per_tok": 2, "output_router_logits": False}
FAMILIES: dict[str, dict[str, object]] = {
    "llama": {**GROUPED, "intermediate_size": 688},
    "gpt2": {"n_embd": 256, "n_layer": 3, "n_head": 8, "vocab_size": 1024, "bos_token_id": 1, "eos_token_id": 2},
    "gpt_neox": USUAL, "phi": USUAL, "falcon": USUAL, "opt": {**USUAL, "ffn_dim": 512, "word_embed_proj_dim": 256},
    "qwen2": GROUPED, "qwen3": GROUPED, "gemma": GROUPED, "gemma2": GROUPED, "gemma3_text": GROUPED, "olmo2": GROUPED,
    "smollm3": GROUPED, "phi3": GROUPED, "mistral": GROUPED, "mixtral": {**GROUPED, **EXPERTS, "num_local_experts": 4},
    "qwen3_moe": {**GROUPED, **EXPERTS, "num_experts": 8, "moe_intermediate_size": 128},
}  # fmt: skip
BRANCHED = ("gpt_neox", "falcon", "qwen3_moe")
"""Attention and MLP in parallel, one product for queries, keys and values, experts."""

LORA = AdapterSpec(r=8, target_modules=("q_proj", "v_proj"))
DROPPED = AdapterSpec(r=8, target_modules=("all-linear",), dropout=0.1)
DORA = AdapterSpec(r=8, target_modules=("all-linear",), use_dora=True)
HALF = {"dtype": DType.BFLOAT16}
CHECKPOINTED = {"gradient_checkpointing": True}
REENTRANT = {"gradient_checkpointing": True, "use_reentrant": True}
CACHED = {"loop": "plain", "use_cache": True}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    f"{dtype} {checkpointing} {method}".replace("  ", " "): {**first, **second, "adapter": adapter}
    for dtype, first in (("float32", {}), ("bfloat16", HALF))
    for checkpointing, second in (("", {}), ("checkpointing", CHECKPOINTED), ("reentrant", REENTRANT))
    for method, adapter in (("full", None), ("LoRA", LORA))
}
USUALLY = ("float32 full", "bfloat16 LoRA", "bfloat16 checkpointing full", "bfloat16 reentrant LoRA")
"""Every value of the grid above once; the rest of it is slow."""
SLOW = set(CONFIGURATIONS) - set(USUALLY)
CONFIGURATIONS |= {
    "dropout": {**HALF, "adapter": DROPPED},
    "DoRA": {"adapter": DORA},
    "outputs and cache kept": CACHED,
    "accumulation": {**HALF, **CHECKPOINTED, "gradient_accumulation_steps": 2, "adapter": LORA},
    "accumulation, gradients kept": {"zero_grad_keeps": True, "gradient_accumulation_steps": 2},
    "lengths full": {"lengths": (96, 160, 64)},
    "lengths LoRA": {"lengths": (160, 96), **HALF, **CACHED, "adapter": LORA},
    "tied": {"tie_word_embeddings": True},
    "fused optimizer": {"optimizer": "adamw_torch_fused"},
    "autocast full": {"autocast": True},
    "autocast LoRA": {"autocast": True, **HALF, **CHECKPOINTED, "adapter": DROPPED},
    "gpt2": {"model_type": "gpt2"},
    "qwen3 LoRA": {"model_type": "qwen3", **CHECKPOINTED, "adapter": DROPPED},
    "mixtral": {"model_type": "mixtral", **HALF},
}


def workload(
    model_type: str = "llama", lengths: tuple[int, ...] = (), tie_word_embeddings: bool | None = None, **recipe: Any
) -> Workload:
    config = {"model_type": model_type, **FAMILIES[model_type]}
    if tie_word_embeddings is not None:
        config["tie_word_embeddings"] = tie_word_embeddings
    usual = {
        "sequence_length": LENGTH, "micro_batch_size": 2, "gradient_checkpointing": False, "dtype": DType.FLOAT32,
        "autocast": False, "optimizer": "adamw_torch", "attention": "eager",
    }  # fmt: skip
    spec = TrainingSpec(**{**usual, **recipe})
    return Workload(config=json.dumps(config, sort_keys=True), recipe=spec, batch_lengths=lengths, device="cpu")


Run = Callable[[Workload], Trace]


@pytest.fixture(scope="module")
def dry_run() -> Iterator[Run]:
    """Runs workloads in one child; there and here optimizers work on lists, as on a card."""
    with pytest.MonkeyPatch.context() as patch, DryRunner() as runner:
        patch.setattr("peftbench.dryrun.runner.MODULE", "dryruns.cpu_steps")
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "support"))
        patch.setattr(OPTIMIZER, QUESTION, on_lists)
        yield runner.run


# ── training steps ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in CONFIGURATIONS]
)
def test_peaks_of_every_phase(name: str, dry_run: Run) -> None:
    compare(workload(**CONFIGURATIONS[name]), dry_run)


@pytest.mark.parametrize("model_type", BRANCHED)
def test_every_large_tensor(model_type: str, dry_run: Run) -> None:
    """A sum that autograd writes in place on one side only would show as an allocation more."""
    asked = workload(model_type, **HALF)
    expected, found = trained(asked), traced(dry_run(asked))
    assert allocations(found, LARGE_BYTES) == allocations(expected, LARGE_BYTES)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["full", "LoRA", "checkpointing", "reentrant", "autocast"])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_peaks_of_every_family(model_type: str, recipe: str, dry_run: Run) -> None:
    experts = "moe" in model_type or model_type == "mixtral"
    options = {
        "full": HALF, "checkpointing": {**HALF, **CHECKPOINTED}, "reentrant": {**HALF, **REENTRANT},
        "LoRA": {**HALF, "adapter": LORA if experts else DROPPED if model_type == "gpt2" else DORA},
        "autocast": {"autocast": True, **CACHED, **(HALF if experts else {})},
    }  # fmt: skip
    compare(workload(model_type, **options[recipe]), dry_run)


TARGETS = ("q_proj", "v_proj", "gate_proj", "down_proj")
OTHER_TYPES: dict[str, dict[str, int]] = {
    "ia3": {}, "adalora": {"init_r": 6}, "loha": {"r": 4}, "lokr": {"r": 2}, "vera": {"r": 16}, "hira": {"r": 4},
    "hra": {"r": 3}, "oft": {"oft_block_size": 16}, "randlora": {"r": 8}, "fourierft": {"n_frequency": 20},
    "miss": {"r": 8}, "road": {"group_size": 16}, "c3a": {"block_size": 16}, "delora": {"r": 4},
    "prompt_tuning": {"num_virtual_tokens": 5}, "prefix_tuning": {"num_virtual_tokens": 5}, "ln_tuning": {},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("peft_type", OTHER_TYPES)
def test_peaks_of_other_adapters(peft_type: str, dry_run: Run) -> None:
    anywhere = peft_type in ("prompt_tuning", "prefix_tuning", "ln_tuning")
    options = tuple(sorted(OTHER_TYPES[peft_type].items()))
    adapter = AdapterSpec(peft_type=peft_type, target_modules=None if anywhere else TARGETS, options=options)
    compare(workload(adapter=adapter), dry_run)


def compare(asked: Workload, dry_run: Run) -> None:
    """Forward, backward and optimizer step of every step."""
    expected, found = peaks(trained(asked)), peaks(traced(dry_run(asked)))
    phases = (Phase.FORWARD, Phase.BACKWARD, Phase.STEP)
    assert set(expected) == {(step, phase.value) for step in range(len(asked.lengths)) for phase in phases}
    assert found == pytest.approx(expected, rel=TOLERANCE)


# ── what autograd writes in place ───────────────────────────────────────────────────────────────────────────────────

SIZE = (128, 256)
HALVES = (64, 512)


def rows(*shape: int) -> Any:
    return torch.zeros(shape, dtype=torch.long)


class Doubled(torch.autograd.Function):
    """Hands one gradient to two inputs, so that autograd may not write to it."""

    @staticmethod
    def forward(ctx: Any, left: Any, right: Any) -> Any:
        return left + right

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0], gradients[0]


def hooked(x: Any) -> Any:
    x.register_hook(lambda gradient: gradient * 2)
    return x.sin() + x.cos()


def retained(x: Any) -> Any:
    x.retain_grad()
    return x.sin() + x.cos()


def recomputed(x: Any, use_reentrant: bool) -> Any:
    return checkpoint(lambda y: y.sin() + y.cos() * y.exp(), x, use_reentrant=use_reentrant) + x.sin()


Branches = Callable[[Any], Any]
BRANCHES: dict[str, Branches] = {
    "two": lambda x: x.sin() + x.cos(),
    "three": lambda x: x.sin() + x.cos() + x.tanh(),
    "the same twice": lambda x: x + x,
    "residual": lambda x: x + x.sin(),
    "residual last": lambda x: x.sin() + x,
    "view": lambda x: x.view(HALVES).sin().view(SIZE) + x.cos(),
    "view last": lambda x: x.cos() + x.view(HALVES).sin().view(SIZE),
    "two views": lambda x: (x.view(HALVES).sin() + x.view(HALVES).cos()).view(SIZE),
    "transposed": lambda x: x.t().sin().t() + x.cos(),
    "transposed copy": lambda x: x.t().reshape(SIZE).sin() + x.cos(),
    "parts": lambda x: torch.cat([part.sin() for part in x.split(64, 1)], 1) + x,
    "row": lambda x: x[3].sin() + x.cos(),
    "repeated": lambda x: x[None].expand(3, *SIZE).sin().sum(0) + x.cos(),
    "products": lambda x: (x @ x.t()) @ x,
    "queries, keys, values": lambda x: (lambda y: y @ x.t() + (y @ x.t()).sin() + y @ x.t())(x.view(4, 32, 256)),
    "tied": lambda x: F.linear(F.embedding(rows(128), x).sin(), x),
    "other types": lambda x: x.bfloat16().sin().float() + x.cos(),
    "mean": lambda x: x - x.mean(-1, keepdim=True) + x.sin(),
    "function": lambda x: Doubled.apply(x, x) + x.sin(),
    "hook": hooked,
    "retained": retained,
    "recomputed": lambda x: recomputed(x, use_reentrant=False),
    "recomputed, reentrant": lambda x: recomputed(x, use_reentrant=True),
    "index": lambda x: x[rows(128)],
    "two indices": lambda x: x[rows(128)].sin() + x[rows(128)].cos(),
    "index_select": lambda x: x.index_select(0, rows(128)),
    "gather": lambda x: x.gather(1, rows(*SIZE)) + x.sin(),
    "topk": lambda x: x.topk(4, 1)[0],
    "largest": lambda x: (x - x.max(-1, keepdim=True)[0]).sin(),
    "index_add": lambda x: torch.zeros(SIZE).index_add(0, rows(128), x),
    "index after index_put": lambda x: x.index_put((rows(128),), x.sin())[rows(128)],
    "gather after scatter": lambda x: x.scatter(1, rows(*SIZE), x.sin()).gather(1, rows(*SIZE)),
}


@pytest.mark.parametrize("name", BRANCHES)
def test_gradients_are_summed_and_spread_as_without_a_recorder(name: str) -> None:
    def run(mark: Begin) -> None:
        mark(Phase.FORWARD, 0)
        loss = BRANCHES[name](torch.ones(SIZE, requires_grad=True).exp()).sin().sum()
        mark(Phase.BACKWARD, 0)
        loss.backward()

    expected, found = profiled(run), traced(recorded(run))
    assert allocations(found, LARGE_BYTES) == allocations(expected, LARGE_BYTES)
    assert peaks(found) == pytest.approx(peaks(expected), abs=LARGE_BYTES)


def recorded(run: Callable[[Begin], None]) -> Trace:
    recorder = Recorder("cpu")
    with FakeTensorMode(allow_non_fake_inputs=True), torch.autograd.set_multithreading_enabled(False):
        recorder.calibrate()
        with recorder:
            run(recorder.mark)
    return Trace(recorder.blocks, recorder.events, recorder.marks)  # type: ignore[arg-type]


# ── modules ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("checkpointing", [CHECKPOINTED, REENTRANT])
def test_recomputation_runs_in_the_modules_of_the_forward_pass(checkpointing: dict[str, Any], dry_run: Run) -> None:
    """torch stops recomputing a layer, with an exception, as soon as it has what was saved."""
    trace = dry_run(workload(**checkpointing))
    forward, again = made_in(trace, Phase.FORWARD, 0), made_in(trace, Phase.BACKWARD, 0)
    for operation in ("aten::_softmax", "aten::silu"):
        modules = [block.module for block in forward if block.operation == operation]
        assert len(modules) == 3
        assert [block.module for block in again if block.operation == operation] == modules[::-1]
    assert {block.module for block in made_in(trace, Phase.STEP, 0)} == {""}
    assert made_in(trace, Phase.FORWARD, 1) == forward


@pytest.mark.parametrize("checkpointing", [{}, CHECKPOINTED, REENTRANT])
def test_only_the_loss_and_the_head_make_logits(checkpointing: dict[str, Any], dry_run: Run) -> None:
    """What backward makes belongs to a layer: the one whose tensors it reads, or whose gradients."""
    blocks = made_in(dry_run(workload(tie_word_embeddings=False, **checkpointing)), Phase.BACKWARD, 0)
    modules = [(block.module, block.operation) for block in blocks if block.part is Part.LOGITS]
    assert modules == [
        ("", "aten::ones_like"), ("", "aten::nll_loss_backward"), ("", "aten::_log_softmax_backward_data"),
        ("lm_head", "aten::mm"),
    ]  # fmt: skip
    assert {f"model.layers.{layer}.mlp.down_proj" for layer in range(3)} < {block.module for block in blocks}


def made_in(trace: Trace, phase: Phase, step: int) -> list[Block]:
    """The blocks that were allocated in a phase that has one stretch in a step."""
    ends = [*(mark.position for mark in trace.marks[1:]), len(trace.events)]
    for mark, end in zip(trace.marks, ends, strict=True):
        if mark.phase is phase and mark.step == step:
            return [trace.blocks[event] for event in trace.events[mark.position : end] if event >= 0]
    raise ValueError(f"no {phase} in step {step}")


# ── the recorder alone ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """On, for fake tensors."""
    recorder = Recorder("cpu")
    with FakeTensorMode(), recorder:
        yield recorder


def test_a_base_lives_as_long_as_a_view_of_it(recorder: Recorder) -> None:
    base = torch.empty(8, 8)
    view = base[2:].t()
    assert recorder.number_of(view) == recorder.number_of(base) == 0
    view = view[1:]
    assert recorder.events == [0]
    del base
    assert recorder.events == [0]
    del view
    assert recorder.events == [0, ~0]


def test_a_write_in_place_allocates_nothing(recorder: Recorder) -> None:
    tensor = torch.zeros(8, 8)
    tensor.add_(1).mul_(tensor)
    torch.add(tensor, 1, out=tensor)
    assert [(block.operation, block.bytes) for block in recorder.blocks] == [("aten::zeros", 256)]


def test_what_autograd_saves_lives_until_backward(recorder: Recorder) -> None:
    leaf = torch.empty(8, 8, requires_grad=True)
    loss = leaf.sin().cos().sum()
    saved = [number for number, block in enumerate(recorder.blocks) if block.operation == "aten::sin"]
    assert not any(~number in recorder.events for number in saved)
    loss.backward()
    assert all(~number in recorder.events for number in saved)


def test_blocks_know_when_and_where_they_were_made(recorder: Recorder) -> None:
    recorder.mark(Phase.FORWARD, 1)
    recorder.modules.append("model.norm")
    made = torch.empty(2, 3, dtype=torch.bfloat16)
    recorder.modules.pop()
    (block,) = recorder.blocks
    assert (block.bytes, block.shape, block.dtype) == (12, (2, 3), torch.bfloat16)
    assert (block.phase, block.module, block.operation) == (Phase.FORWARD, "model.norm", "aten::empty")
    assert recorder.marks == [Mark(0, 1, Phase.FORWARD.value)]
    recorder.is_part(Part.KV_CACHE, made, None, "not a tensor")
    assert block.part is Part.KV_CACHE


def test_scratch_is_alive_until_it_is_released(recorder: Recorder) -> None:
    number = recorder.scratch(1000, "sort", Part.WORKSPACE)
    other = recorder.scratch(10, "sort", Part.WORKSPACE)
    recorder.release(number)
    assert recorder.events == [number, other, ~number]
    assert [(block.bytes, block.part) for block in recorder.blocks] == [(1000, Part.WORKSPACE), (10, Part.WORKSPACE)]


def test_tensors_of_another_device_are_not_recorded() -> None:
    recorder = Recorder("cuda")
    with FakeTensorMode(), recorder:
        tensor = torch.empty(8)
        assert recorder.adopt(tensor, "loading") is None
        recorder.is_part(Part.WEIGHTS, tensor)
    assert not recorder.blocks


def test_values_are_plausible(recorder: Recorder) -> None:
    """Gradients are finite and masks are full, where code asks."""
    tensor = torch.empty(8)
    assert torch.isfinite(tensor).all()
    assert tensor.sum().item() == 1.0
    assert int(tensor.argmax()) == 1


def test_calibration_leaves_no_trace() -> None:
    recorder = Recorder("cpu")
    with FakeTensorMode():
        recorder.calibrate()
        with recorder:
            kept = torch.empty(4, 4)
    assert recorder.events == [0]
    assert recorder.number_of(kept) == 0
    assert recorder.phase is Phase.LOAD
