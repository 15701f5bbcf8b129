"""One dry run, in a process of its own: build the model, describe it on the card, run it, hand back the trace."""

from __future__ import annotations

import gc
import itertools
import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from peftbench.dryrun.child.generate import Generation
from peftbench.dryrun.child.loss import head_of
from peftbench.dryrun.child.materialize import materialize
from peftbench.dryrun.child.model import base_model_of, build
from peftbench.dryrun.child.peft_model import adapt, blaming_peft
from peftbench.dryrun.child.train import MICRO_BATCHES, Training
from peftbench.dryrun.fake.attention import KERNELS
from peftbench.dryrun.fake.card import CARD
from peftbench.dryrun.fake.scan import torch_paths
from peftbench.dryrun.parallel.fsdp import recorded, shard
from peftbench.dryrun.parallel.group import group_of
from peftbench.dryrun.trace.recorder import Recorder, classify
from peftbench.dryrun.trace.trace import Trace
from peftbench.dryrun.workload import Workload
from peftbench.inputs.recipe import TrainingSpec
from peftbench.libraries.model import causal_lm_of, count_parameters, read_weights
from peftbench.libraries.task import task_of
from peftbench.memory import Phase

Progress = Callable[[float], None]
"""Takes the share of the run that is done."""


def dry_run(workload: Workload, progress: Progress = lambda share: None) -> Trace:
    """Run the workload on fake tensors. Raises Refused; the device must have been prepared before."""
    CARD.set(workload.compute_capability, workload.multiprocessors, workload.padded)
    KERNELS.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base, num_parameters = build(workload)
        recorder = Recorder(workload.device_type)
        # in one thread, tensors die where they would, and never later
        with (
            group_of(workload.recipe.parallelism), FakeTensorMode(allow_non_fake_inputs=True), recorded(recorder),
            torch.autograd.set_multithreading_enabled(False),
        ):  # fmt: skip
            recorder.calibrate()
            recorder.mark(Phase.LOAD, 0)
            recorder.notes += [*_run_as(base, workload), *_kept_whole(base, workload)]
            model = _prepared(base, workload, recorder)
            _watch(model, recorder)
            _count(model, workload, progress)
            gc.collect()
            with recorder, torch_paths(model, recorder.notes), blaming_peft(model, workload):
                kind = Training if isinstance(workload.recipe, TrainingSpec) else Generation
                kind(model, workload, recorder).run()
        trace = _trace(recorder, model, num_parameters)
    if workload.layers is not None:
        trace.facts["full_num_parameters"] = count_parameters(base_model_of(replace(workload, layers=None)))
    return trace


def _run_as(base: nn.Module, workload: Workload) -> list[str]:
    """Which class the config.json was taken for, where it is no causal language model and no task was asked for."""
    task = task_of(json.loads(workload.config), workload.task_spec.task_type)
    if workload.task_spec.task_type != "auto" or task == "causal-lm":
        return []
    return [f"Trained as {type(base).__name__}, for {task}: --task-type chooses another task."]


def _kept_whole(base: nn.Module, workload: Workload) -> list[str]:
    """What a user has to leave out of quantization, which `build` has done."""
    kept = read_weights(base) if workload.recipe.quantization else ()
    named = [name for name in kept if any(path.rpartition(".")[2] == name for path, _ in base.named_modules())]
    if not named:
        return []
    option = "llm_int8_skip_modules"
    return [f"Priced with {option} of {', '.join(named)}, whose weights the model's own code multiplies."]


def _prepared(base: nn.Module, workload: Workload, recorder: Recorder) -> nn.Module:
    """The model as it is trained: on the card, with its adapter, cut where it is shared by several GPUs.

    A model that is cut comes to the card unit by unit unless the recipe says otherwise; bitsandbytes quantizes there,
    so a quantized one is there whole.
    """
    recipe = workload.recipe
    shards = recipe.parallelism.shards_weights
    by_unit = shards and recipe.quantization is None and recipe.parallelism.loading != "whole"
    device = "cpu" if by_unit else recorder.device_type
    materialize(base, recipe, recorder, device)
    own = {id(parameter) for parameter in base.parameters()}
    with recorder:
        model = adapt(base, workload, recorder, device)
    if shards:
        assert isinstance(recipe, TrainingSpec)
        shard(model, recipe, recorder, {id(parameter) for parameter in model.parameters()} - own)
    return model


def _watch(model: nn.Module, recorder: Recorder) -> None:
    """Let the recorder know which module runs, by the names that transformers gives."""
    names = {id(module): name for name, module in model.named_modules()}
    names |= {id(module): name for name, module in causal_lm_of(model).named_modules()}
    stack = recorder.modules

    def leave(module: nn.Module, args: Any, out: Any) -> None:
        stack.pop()

    for module in model.modules():
        name = names[id(module)]
        module.register_forward_pre_hook(lambda module, args, name=name: stack.append(name), prepend=True)
        module.register_forward_hook(leave, always_call=True)


def _text_config(model: nn.Module) -> Any:
    return causal_lm_of(model).config.get_text_config(decoder=True)


def _count(model: nn.Module, workload: Workload, progress: Progress) -> None:
    """Report the share that is done each time a layer runs, backward's recomputation included."""
    recipe, each = workload.recipe, getattr(_text_config(model), "num_hidden_layers", 1)
    if isinstance(recipe, TrainingSpec):
        passes = each * len(workload.lengths) * min(recipe.gradient_accumulation_steps, MICRO_BATCHES)
    else:
        passes = each * recipe.new_tokens
    done = itertools.count(1)

    def layer_done(module: nn.Module, args: Any) -> None:
        progress(min(next(done) / max(passes, 1), 1.0))

    for layers in (m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == each):
        for layer in layers:
            layer.register_forward_pre_hook(layer_done)


def _trace(recorder: Recorder, model: nn.Module, num_parameters: int) -> Trace:
    """What was recorded, each block with its part."""
    causal_lm = causal_lm_of(model)
    head = head_of(causal_lm)
    name = next((name for name, module in causal_lm.named_modules() if module is head), "")
    vocab_size = getattr(_text_config(model), "vocab_size", 0)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    facts = {
        "num_parameters": num_parameters,
        "trainable_parameters": sum(parameter.numel() for parameter in trained),
        "saved_bytes": sum(parameter.nbytes for parameter in trained or model.parameters()),
        "attention": dict(KERNELS),
        "device": recorder.device_type,
        "vocab_size": vocab_size,
        "notes": recorder.notes,
    }
    blocks = [classify(block, name, vocab_size) for block in recorder.blocks]
    return Trace(blocks, list(recorder.events), recorder.marks, facts)  # events go on: the model is still alive
