"""Memory planning for fine-tuning language models: does this recipe fit that card, and why?

    >>> import peftbench
    >>> plan = peftbench.plan("8b", "t4", method="qlora", sequence_length=4096)
    >>> plan.verdict.fit.text
    'fits'

Names are imported when they are first used, so that `import peftbench` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftbench.decide.plan.plan import Plan
    from peftbench.dryrun.session import DryRun
    from peftbench.inputs.card.gpu import GpuSpec
    from peftbench.inputs.case import DeviceType
    from peftbench.inputs.model.spec import ModelSpec
    from peftbench.inputs.recipe import TrainingSpec
    from peftbench.measure.own.callback import RunCallback
    from peftbench.records.run import RunRecord

_HOMES = {
    "AdapterSpec": "peftbench.inputs.recipe.adapter",
    "DryRun": "peftbench.dryrun.session",
    "DType": "peftbench.inputs.recipe.dtype",
    "GpuSpec": "peftbench.inputs.card.gpu",
    "InferenceSpec": "peftbench.inputs.recipe.inference",
    "MemoryProfile": "peftbench.memory",
    "ModelSpec": "peftbench.inputs.model.spec",
    "PeftbenchError": "peftbench.base.errors",
    "SpecError": "peftbench.base.errors",
    "Plan": "peftbench.decide.plan.plan",
    "RunRecord": "peftbench.records.run",
    "QuantizationSpec": "peftbench.inputs.recipe.quantization",
    "TrainingSpec": "peftbench.inputs.recipe.training",
    "estimate_inference": "peftbench.estimate.inference",
    "estimate_training": "peftbench.estimate.training",
    "find_gpu": "peftbench.catalog.gpus",
    "find_model": "peftbench.catalog.models",
    "list_gpus": "peftbench.catalog.gpus",
    "list_models": "peftbench.catalog.models",
    "make_plan": "peftbench.decide.plan.plan",
}

__all__ = ["PeftbenchCallback", "__version__", "dry_run", "measure_training", "plan", *sorted(_HOMES)]


def plan(
    model: str | ModelSpec, gpu: str | GpuSpec | None = None, method: str = "lora", framework: str = "transformers",
    **recipe: Any,
) -> Plan:  # fmt: skip
    """Predict the memory of one fine-tuning run and judge it on a card; None judges it on no card.

    `recipe` has the options of `peftbench plan` with underscores: sequence_length=4096, r=8, loss="liger", gpus=8.
    `framework` is whose launches and kernels the time of a step is of: transformers, unsloth or torchtune.
    Raises PeftbenchError for what cannot be: its text says what to change.
    """
    from peftbench.catalog.gpus import find_gpu
    from peftbench.catalog.models import find_model
    from peftbench.decide.asked import Asked
    from peftbench.decide.from_options import check_sharing, training_recipes, within_positions
    from peftbench.decide.plan.plan import make_plan
    from peftbench.inputs.card.gpu import GpuSpec
    from peftbench.inputs.model.spec import ModelSpec

    spec = model if isinstance(model, ModelSpec) else find_model(model)
    card = gpu if gpu is None or isinstance(gpu, GpuSpec) else find_gpu(gpu)

    def build(method: str, options: Mapping[str, Any]) -> TrainingSpec:
        return training_recipes((method,), within_positions(spec, "training", (method,), options))[0]

    training = build(method, recipe)
    check_sharing(recipe, (training,))
    return make_plan(spec, training, card, framework=framework, asked=Asked(training.method, recipe, build))


def dry_run(
    model: str, gpu: str | GpuSpec | None = None, method: str = "lora", timeout_s: float | None = None, **recipe: Any
) -> DryRun:  # fmt: skip
    """Run two steps of the real libraries on fake tensors, as `peftbench plan --dry-run` does; needs peftbench[bench].

    `model` is what --model takes, of any architecture. `recipe` is as for plan(), and may have batch_lengths and
    empty_cache_steps. A run that gives no sign of life for `timeout_s` is ended, ten minutes unless given. Raises
    PeftbenchError for what cannot be or cannot be run.
    """
    from peftbench.catalog.gpus import find_gpu
    from peftbench.catalog.models import find_config
    from peftbench.decide.card import settle_training
    from peftbench.decide.from_options import training_recipes, within_positions
    from peftbench.dryrun.session import DryRunSession
    from peftbench.dryrun.workload import workload_of
    from peftbench.inputs.card.gpu import GpuSpec

    named = find_config(model)
    card = gpu if gpu is None or isinstance(gpu, GpuSpec) else find_gpu(gpu)
    batches = {name: recipe.pop(name) for name in ("batch_lengths", "empty_cache_steps") if name in recipe}
    options = within_positions(named.other, "training", (method,), recipe)
    training, _ = settle_training(named.other, training_recipes((method,), options)[0], card)
    with DryRunSession(timeout_s=timeout_s) as session:
        return session.run(workload_of(named.config, training, card, **batches), card)


def measure_training(
    model: str, method: str = "lora", device: DeviceType = "cuda", steps: int = 5, timeout_s: float | None = None,
    **recipe: Any,
) -> RunRecord:  # fmt: skip
    """Train for a few real steps in a child process, as `peftbench run` does, and return what they took.

    `recipe` is as for plan(); weights are random; `timeout_s` is an hour unless given. Needs peftbench[bench], and a
    CUDA card unless device is "cpu". However the child ends is in the record; raises PeftbenchError for what cannot
    be, or cannot be measured here.
    """
    import json

    from peftbench.catalog.models import find_config
    from peftbench.decide.card import settle_training
    from peftbench.decide.from_options import training_recipes, within_positions
    from peftbench.inputs.case import TIMEOUT_S, Case, time_limit
    from peftbench.measure.child_process import Stop
    from peftbench.measure.device.local_gpu import find_local_gpus
    from peftbench.measure.device.open import open_device
    from peftbench.measure.runner import run_case

    limit_s = time_limit(timeout_s, TIMEOUT_S)
    named = find_config(model)
    options = within_positions(named.other, "training", (method,), recipe)
    card = find_local_gpus()[0] if device == "cuda" else None
    training, _ = settle_training(named.other, training_recipes((method,), options)[0], card)
    config = json.dumps(named.config, sort_keys=True)
    case = Case(id=method, model=named.name, config=config, recipe=training, steps=steps, device=device)
    opened = open_device(device)
    with Stop() as stop:
        return run_case(case, opened, "python", stop, limit_s)


def PeftbenchCallback(path: str | None = None, steps: int = 10) -> RunCallback:
    """A transformers.TrainerCallback that records your own run and prints it beside what is predicted for it.

        trainer.add_callback(peftbench.PeftbenchCallback("run.jsonl"))

    Samples the device to the end, and takes torch's peaks by phase in the first `steps` steps. The record is appended
    to `path`, where `peftbench validate` and `report` read it; None: it is only printed. Raises MeasureError for a file
    of something else. What fails after the training is only printed: the trained model is worth more than the record.
    """
    from os.path import exists
    from typing import Annotated

    from peftbench.base.codec import Within, from_json
    from peftbench.base.errors import PeftbenchError
    from peftbench.base.screen import say
    from peftbench.base.screen import tell as tell_user
    from peftbench.check.runs.comparison import compare
    from peftbench.decide.adapter_config import adapter_of
    from peftbench.measure.own.callback import RunCallback
    from peftbench.records.file import RecordFile
    from peftbench.report.runs.table import described

    steps = from_json(Annotated[int, Within(1)], steps, "steps")
    path = from_json(str | None, path if path is None else _path_text(path), "path")

    def tell(record: RunRecord) -> None:
        say(described(compare([record])[0]))
        if path is None:
            return
        try:
            with RecordFile(path, tell_user) as file:
                file.append(record)
        except (PeftbenchError, OSError) as error:
            tell_user(f"this run is not recorded: {error}")

    if path is not None and exists(path):
        with RecordFile(path, tell_user):
            pass
    return RunCallback(adapter_of, tell, steps)


def _path_text(path: object) -> object:
    """The text of a Path; everything else as it is. Raises SpecError for what no file can be called."""
    from os import PathLike, fspath

    from peftbench.base.errors import SpecError

    text = fspath(path) if isinstance(path, PathLike) else path
    if text == "" or (isinstance(text, str) and "\0" in text):
        raise SpecError("path is no name of a file.", "Name one, as in run.jsonl.")
    return text


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "__version__":
        return import_module("importlib.metadata").version("peftbench")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'peftbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
