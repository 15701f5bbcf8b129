"""A step, and a few generated tokens, of the architectures that the installed transformers calls causal LMs.

Of the 189 of transformers 5.23, 183 train; the other six are refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]
for name in ("torch", "transformers", "peft", "bitsandbytes"):
    pytest.importorskip(name)

from dryruns.architectures import config_of, names  # noqa: E402
from dryruns.real_adapters import alive  # noqa: E402

from peftbench.dryrun.runner import DryRunError  # noqa: E402
from peftbench.dryrun.trace.trace import Trace  # noqa: E402
from peftbench.dryrun.workload import Workload  # noqa: E402
from peftbench.inputs.recipe import AdapterSpec, InferenceSpec, QuantizationSpec, TrainingSpec  # noqa: E402
from peftbench.inputs.task import TaskSpec  # noqa: E402
from peftbench.libraries.refusal import Refused  # noqa: E402
from peftbench.memory import Part, Phase  # noqa: E402

Run = Callable[[Workload], Trace]

REPRESENTATIVE = (
    "llama", "gpt2", "bloom", "gemma3_text", "gemma4_text",  # dense, learned positions, ALiBi, windows, unlike layers
    "mixtral", "gpt_oss", "deepseek_v3", "jetmoe", "qwen3_moe",  # experts: fused, with sinks, latent, counted
    "bamba", "falcon_mamba", "qwen3_next", "recurrent_gemma", "lfm2",  # state spaces, linear attention, convolutions
    "whisper", "gemma3", "reformer", "blt",  # a decoder alone, with a vision tower, hashed, of bytes
)  # fmt: skip
ALL_LINEAR = AdapterSpec(r=8, target_modules=("all-linear",))
RESTING = {"gemma3n", "musicgen", "musicgen_melody", "git", "gemma4_assistant", "gemma4_unified_assistant"}
"""gemma3n asks for timm, MusicGen's class for its decoder's config, the others for more than tokens."""
NOT_BY_PEFT = {"reformer"}
"""Its reversible layers lose the gradient of a frozen embedding, on real tensors too."""
LEFT_OUT = {"phimoe": "router", "deepseek_v4": "o_a_proj", "falcon_mamba": "out_proj"}
"""Layers among the linear ones that PEFT cannot adapt: one that returns a tuple, one of groups, one read past it."""
NOT_GENERATING = {"blt", "cpmant", "xlnet"}
"""blt's class asks its config for layers that it has not, cpmant is given all tokens anew, xlnet runs in float32."""
NO_CACHE = {"openai-gpt", "xlm"}


def training(name: str, **recipe: object) -> Workload:
    options = {"gradient_checkpointing": False, **recipe}
    spec = TrainingSpec(sequence_length=32, micro_batch_size=2, optimizer="adamw_torch", **options)  # type: ignore[arg-type]
    return Workload(config=config_of(name), recipe=spec, task_spec=TaskSpec(task_type="causal-lm"))


def check_training(trace: Trace) -> None:
    """Two steps have gradients of the trained tensors, which the optimizer keeps two averages of."""
    gradients = alive(trace, Part.GRADIENTS, Phase.STEP, 0)
    assert gradients > 0
    assert alive(trace, Part.OPTIMIZER, Phase.FORWARD, 1) > gradients
    assert {mark.step for mark in trace.marks} == {0, 1}


# ── a few of every kind ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_full_fine_tuning(dry_run: Run, name: str) -> None:
    trace = dry_run(training(name))
    check_training(trace)
    assert alive(trace, Part.WEIGHTS, Phase.FORWARD, 0) >= 2 * trace.facts["num_parameters"]


@pytest.mark.parametrize("name", LEFT_OUT)
def test_all_linear_leaves_out_what_peft_cannot_adapt(dry_run: Run, name: str) -> None:
    trace = dry_run(training(name, adapter=ALL_LINEAR))
    check_training(trace)
    assert any(LEFT_OUT[name] in note for note in trace.facts["notes"]), trace.facts["notes"]


def test_layers_without_their_kernels_are_noted_with_the_packages(dry_run: Run) -> None:
    """transformers has a function of torch beside each, which is what is priced wherever the dry run runs."""
    notes = dry_run(training("falcon_mamba", quantization=QuantizationSpec(), adapter=ALL_LINEAR)).facts["notes"]
    assert any("causal-conv1d, mamba-ssm" in note for note in notes), notes
    assert any("llm_int8_skip_modules of dt_proj" in note for note in notes), notes
    assert dry_run(training("llama")).facts["notes"] == []


@pytest.mark.parametrize("name", ["llama", "mixtral", "bamba", "falcon_mamba", "qwen3_next"])
def test_qlora(dry_run: Run, name: str) -> None:
    workload = training(name, adapter=ALL_LINEAR, quantization=QuantizationSpec(), gradient_checkpointing=True)
    check_training(dry_run(workload))


@pytest.mark.parametrize(
    "name", ["llama", "gpt2", "gemma4_text", "deepseek_v3", "bamba", "falcon_mamba", "qwen3_next", "recurrent_gemma"]
)
def test_generation(dry_run: Run, name: str) -> None:
    request = InferenceSpec(prompt_tokens=32, new_tokens=3, batch_size=2)
    trace = dry_run(Workload(config=config_of(name), recipe=request))
    assert [mark.name for mark in trace.marks] == [Phase.LOAD, Phase.PREFILL, Phase.DECODE, Phase.DECODE]
    if name not in NO_CACHE:
        assert any(block.part is Part.KV_CACHE for block in trace.blocks)


@pytest.mark.parametrize(
    "name", ["llama", "gpt2", "gemma4_text", pytest.param("bailing_hybrid", marks=pytest.mark.slow)]
)
def test_layers_of_a_deep_model_are_cut_with_all_that_belongs_to_them(dry_run: Run, name: str) -> None:
    """What extrapolation asks for."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = CONFIG_MAPPING[name]().to_json_string(use_diff=False)
    recipe = training("llama").recipe
    trace = dry_run(Workload(config=config, recipe=recipe, layers=3))
    assert trace.facts["num_parameters"] < trace.facts["full_num_parameters"]


# ── refusals ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"model_type": "git"}, "git is not run on tokens alone"),
        ({"model_type": "lama"}, "no model of type lama"),
        ({"hidden_size": 64}, r"of type \(none\)"),
        ({"model_type": "llama", "hidden_size": "wide"}, "transformers refuses the config.json.*hidden_size"),
        ({"model_type": "llama", "num_attention_heads": 7}, "transformers (refuses|cannot build)"),
        ({"model_type": "musicgen"}, "transformers cannot build musicgen"),
    ],
)
def test_a_config_that_cannot_be_run_is_refused_in_a_line(dry_run: Run, config: dict[str, object], what: str) -> None:
    with pytest.raises(Refused, match=what) as refused:
        dry_run(replace(training("llama"), config=json.dumps(config)))
    assert "\n" not in refused.value.what and refused.value.hint


def test_a_class_without_checkpointing_is_run_without_and_that_is_noted(dry_run: Run) -> None:
    trace = dry_run(training("reformer", gradient_checkpointing=True))
    assert any("reformer has no gradient checkpointing" in note for note in trace.facts["notes"])


# ── every architecture ──────────────────────────────────────────────────────────────────────────────────────────────


def runs_unless(name: str, exceptions: set[str], run: Callable[[], Trace]) -> None:
    if name not in exceptions:
        check_training(run())
        return
    with pytest.raises((Refused, DryRunError)) as refused:
        run()
    assert "\n" not in refused.value.what


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_every_architecture(dry_run: Run, name: str) -> None:
    runs_unless(name, RESTING, lambda: dry_run(training(name)))


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_checkpointing_of_every_architecture(dry_run: Run, name: str) -> None:
    runs_unless(name, RESTING, lambda: dry_run(training(name, gradient_checkpointing=True)))


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_lora_on_every_architecture(dry_run: Run, name: str) -> None:
    runs_unless(name, RESTING | NOT_BY_PEFT, lambda: dry_run(training(name, adapter=ALL_LINEAR)))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in names() if name not in RESTING | NOT_GENERATING])
def test_generation_of_every_architecture(dry_run: Run, name: str) -> None:
    test_generation(dry_run, name)
