"""Models of other tasks than causal language modelling, by the class that transformers has for each."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]
for name in ("torch", "transformers", "peft", "bitsandbytes"):
    pytest.importorskip(name)

from peftbench.dryrun.trace.trace import Trace  # noqa: E402
from peftbench.dryrun.workload import Workload  # noqa: E402
from peftbench.inputs.recipe import AdapterSpec, TrainingSpec  # noqa: E402
from peftbench.inputs.task import TaskSpec  # noqa: E402
from peftbench.libraries.refusal import Refused  # noqa: E402
from peftbench.memory import Part  # noqa: E402

Run = Callable[[Workload], Trace]
BERT = {
    "model_type": "bert", "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128, "num_attention_heads": 4,
}  # fmt: skip
T5 = {"model_type": "t5", "d_model": 64, "d_kv": 16, "num_heads": 4, "d_ff": 128, "num_layers": 2}
WHISPER = {
    "model_type": "whisper", "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
}  # fmt: skip
LORA = AdapterSpec(r=4, target_modules=("all-linear",))


def workload(config: dict[str, Any], adapter: AdapterSpec | None = None, **task: Any) -> Workload:
    recipe = TrainingSpec(sequence_length=32, micro_batch_size=2, adapter=adapter)
    return Workload(config=json.dumps(config), recipe=recipe, task_spec=TaskSpec(**task))


def real(kind: str, config: dict[str, Any], **changes: Any) -> int:
    """Parameters of a class of BERT's."""
    import torch
    import transformers

    values = {key: value for key, value in config.items() if key != "model_type"}
    with torch.device("meta"):
        model = getattr(transformers, kind)(transformers.BertConfig(**values, **changes))
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("task", "kind", "changes"),
    [
        ("auto", "BertModel", {}),
        ("seq-cls", "BertForSequenceClassification", {"num_labels": 3}),
        ("token-cls", "BertForTokenClassification", {"num_labels": 3}),
        ("question-ans", "BertForQuestionAnswering", {}),
        ("masked-lm", "BertForMaskedLM", {}),
    ],
)
def test_an_encoder_has_the_class_of_its_task(dry_run: Run, task: str, kind: str, changes: dict[str, int]) -> None:
    trace = dry_run(workload(BERT, LORA, task_type=task, **changes))
    assert trace.facts["num_parameters"] == real(kind, BERT, **changes)


def test_without_a_task_its_class_decides_and_is_noted(dry_run: Run) -> None:
    trace = dry_run(workload({**BERT, "architectures": ["BertForSequenceClassification"]}))
    assert trace.facts["num_parameters"] == real("BertForSequenceClassification", BERT)
    assert trace.facts["notes"] == [
        "Trained as BertForSequenceClassification, for seq-cls: --task-type chooses another task."
    ]


def test_the_head_of_a_task_is_trained_whole_beside_the_adapter(dry_run: Run) -> None:
    plain = dry_run(workload(BERT, LORA)).facts["trainable_parameters"]
    head = 64 * 3 + 3
    found = dry_run(workload(BERT, LORA, task_type="token-cls", num_labels=3)).facts
    pooler = 4 * (64 + 64)  # which BertForTokenClassification does not have
    assert found["trainable_parameters"] == plain - pooler + head
    assert any("without classifier" in note for note in found["notes"])


def test_an_encoder_decoder_has_logits_of_the_target_alone(dry_run: Run) -> None:
    trace = dry_run(workload(T5, task_type="seq-2-seq-lm", target_length=8))
    shapes = {block.shape for block in trace.blocks if block.part is Part.LOGITS}
    assert "2,8,32128" in shapes and "2,32,32128" not in shapes


def test_speech_is_given_a_spectrogram(dry_run: Run) -> None:
    trace = dry_run(workload(WHISPER, LORA))
    assert any(block.shape == "2,80,3000" for block in trace.blocks)


def test_a_task_that_a_type_does_not_have_is_refused(dry_run: Run) -> None:
    with pytest.raises(Refused, match="no model of type bert for seq-2-seq-lm"):
        dry_run(workload(BERT, task_type="seq-2-seq-lm"))
