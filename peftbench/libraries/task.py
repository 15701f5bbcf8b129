"""Which of transformers' classes a config.json is trained as."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftbench.base.errors import did_you_mean
from peftbench.libraries.refusal import Refused
from peftbench.libraries.versions import newer_transformers

CLASSES = {
    "causal-lm": ("IMAGE_TEXT_TO_TEXT", "CAUSAL_LM", "MULTIMODAL_LM"),
    "seq-2-seq-lm": ("SPEECH_SEQ_2_SEQ", "SEQ_TO_SEQ_CAUSAL_LM"),
    "seq-cls": ("SEQUENCE_CLASSIFICATION",),
    "token-cls": ("TOKEN_CLASSIFICATION",),
    "question-ans": ("QUESTION_ANSWERING",),
    "masked-lm": ("MASKED_LM",),
    "feature-extraction": ("TEXT_ENCODING", ""),
}
"""transformers' tables of classes that have each task, in the order in which they are looked up."""
_ENDINGS = {
    "ForSequenceClassification": "seq-cls", "ForTokenClassification": "token-cls",
    "ForQuestionAnswering": "question-ans", "ForMaskedLM": "masked-lm", "ForCausalLM": "causal-lm",
    "LMHeadModel": "causal-lm", "Model": "feature-extraction",
}  # fmt: skip
"""How classes that are named in `architectures` end."""
PEFT_TASKS = {
    "causal-lm": "CAUSAL_LM", "seq-2-seq-lm": "SEQ_2_SEQ_LM", "seq-cls": "SEQ_CLS", "token-cls": "TOKEN_CLS",
    "question-ans": "QUESTION_ANS", "feature-extraction": "FEATURE_EXTRACTION",
}  # fmt: skip


def task_of(given: Mapping[str, Any], asked: str) -> str:
    """The task that was asked for, or the one that the config.json is trained for. Raises Refused for none."""
    if asked != "auto":
        return asked
    model_type, named = str(given.get("model_type", "")), _architecture(given)
    ending = next((task for end, task in _ENDINGS.items() if named.endswith(end)), "")
    if ending and _class_name(given, ending):
        return ending
    for task in _usual(given):
        if _class_name({**given, "architectures": []}, task):
            return task
    what = f"the installed transformers has no causal language model of type {model_type or '(none)'}, nor any other."
    near = newer_transformers(model_type) or did_you_mean(model_type, list(_table("")))
    raise Refused(what, near or "Its config.json needs another model_type.")


def class_of(given: Mapping[str, Any], task: str) -> Any:
    """transformers' class for the task. Raises Refused where a model of this type has none."""
    import transformers

    name = _class_name(given, task)
    found = getattr(transformers, name, None)
    if found is None:
        known = [other for other in CLASSES if _class_name(given, other)]
        what = f"transformers has no model of type {given.get('model_type')} for {task}."
        raise Refused(what, f"Choose --task-type {', '.join(known)}." if known else "Choose another model.")
    return found


def _usual(given: Mapping[str, Any]) -> tuple[str, ...]:
    """Tasks in the order of what models of a kind are trained for, where the config.json does not name its class."""
    model_type = str(given.get("model_type", ""))
    speech = model_type in _table("SPEECH_SEQ_2_SEQ")
    if speech or (model_type in _table("SEQ_TO_SEQ_CAUSAL_LM") and given.get("is_encoder_decoder", True)):
        return ("seq-2-seq-lm",)
    encodes = model_type in _table("MASKED_LM") and not given.get("is_decoder")
    bidirectional = encodes or given.get("use_bidirectional_attention") is True
    return ("feature-extraction",) if bidirectional else ("causal-lm", "feature-extraction")


def _class_name(given: Mapping[str, Any], task: str) -> str:
    """The class named in `architectures` where it has the task, else the first that has; "" for none."""
    model_type = str(given.get("model_type", ""))
    names = [_table(each)[model_type] for each in CLASSES[task] if model_type in _table(each)]
    flat = [name for each in names for name in ((each,) if isinstance(each, str) else each)]
    named = _architecture(given)
    if named in flat:
        return named
    of_text = _table("CAUSAL_LM").get(model_type) if task == "causal-lm" else None
    if of_text and not isinstance(given.get("vision_config"), Mapping):
        return str(of_text)
    return flat[0] if flat else ""


def _architecture(given: Mapping[str, Any]) -> str:
    named = given.get("architectures")
    return str(named[0]) if isinstance(named, (list, tuple)) and named else ""


def _table(name: str) -> Mapping[str, Any]:
    from transformers.models.auto import modeling_auto

    full = f"MODEL_FOR_{name}_MAPPING_NAMES" if name else "MODEL_MAPPING_NAMES"
    found: Mapping[str, Any] = getattr(modeling_auto, full, {})
    return found
