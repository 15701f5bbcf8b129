"""One dry run, in a process of its own: build the model, describe it on the card, run it, hand back the trace."""

from __future__ import annotations

import gc
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
from peftbench.dryrun.child.model import build, parameters_of
from peftbench.dryrun.child.peft_model import adapt, blaming_peft
from peftbench.dryrun.child.train import MICRO_BATCHES, Training
from peftbench.dryrun.fake.attention import KERNELS
from peftbench.dryrun.fake.card import CARD
from peftbench.dryrun.trace.recorder import Recorder, classify
from peftbench.dryrun.trace.trace import EMPTY_CACHE, Mark, Trace
from peftbench.dryrun.workload import Workload
from peftbench.inputs.recipe.training import TrainingSpec
from peftbench.libraries.model import causal_lm_of
from peftbench.memory import Phase

Progress = Callable[[float], None]
"""Takes the share of the run that is done."""


def dry_run(workload: Workload, progress: Progress = lambda share: None) -> Trace:
    """Run the workload on fake tensors. Raises Refused; the device must have been prepared before."""
    CARD.set(workload.compute_capability, workload.multiprocessors, workload.padded)
    KERNELS.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        built = build(workload)
        recorder = Recorder(workload.device_type)
        run = _Run(recorder, progress)
        # in one thread, tensors die where they would, and never later
        with FakeTensorMode(allow_non_fake_inputs=True), torch.autograd.set_multithreading_enabled(False):
            recorder.calibrate()
            run.mark(Phase.LOAD, 0)
            materialize(built.model, workload.recipe.quantization, recorder)
            with recorder:
                model = adapt(built.model, workload, recorder)
            run.watch(model, workload)
            gc.collect()
            with recorder, blaming_peft(model, workload):
                kind = Training if isinstance(workload.recipe, TrainingSpec) else Generation
                kind(model, workload, recorder, run.mark).run()
    trace = run.trace(model, built.num_parameters)
    if workload.layers is not None:
        trace.facts["full_num_parameters"] = parameters_of(replace(workload, layers=None))
    return trace


class _Run:
    """The marks of a run under way, and how far it is."""

    def __init__(self, recorder: Recorder, progress: Progress) -> None:
        self.recorder = recorder
        self.progress = progress
        self.marks: list[Mark] = []
        self.passes = self.done = 0

    def mark(self, name: str, step: int) -> None:
        """Begin a phase, or note that the cache is emptied."""
        self.marks.append(Mark(len(self.recorder.events), step, str(name)))
        if name != EMPTY_CACHE:
            self.recorder.phase, self.recorder.step = Phase(name), step

    def watch(self, model: nn.Module, workload: Workload) -> None:
        """Tell the recorder which module runs, by the names that transformers gives, and count the layers."""
        names = {id(module): name for name, module in model.named_modules()}
        names |= {id(module): name for name, module in causal_lm_of(model).named_modules()}
        stack = self.recorder.modules

        def leave(module: nn.Module, args: Any, out: Any) -> None:
            stack.pop()

        for module in model.modules():
            name = names[id(module)]
            module.register_forward_pre_hook(lambda module, args, name=name: stack.append(name), prepend=True)
            module.register_forward_hook(leave, always_call=True)
        self._count(model, workload)

    def _count(self, model: nn.Module, workload: Workload) -> None:
        config = causal_lm_of(model).config
        recipe = workload.recipe
        each = getattr(config, "num_hidden_layers", 1)
        if isinstance(recipe, TrainingSpec):
            self.passes = each * len(workload.lengths) * min(recipe.gradient_accumulation_steps, MICRO_BATCHES)
        else:
            self.passes = each * max(recipe.new_tokens, 1)
        for layers in (m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == each):
            for layer in layers:
                layer.register_forward_pre_hook(self._layer_done)

    def _layer_done(self, module: nn.Module, args: Any) -> None:
        self.done += 1
        self.progress(min(self.done / max(self.passes, 1), 1.0))

    def trace(self, model: nn.Module, num_parameters: int) -> Trace:
        """What was recorded, each block with its part."""
        causal_lm = causal_lm_of(model)
        head = head_of(causal_lm)
        name = next((name for name, module in causal_lm.named_modules() if module is head), "")
        vocab_size = getattr(causal_lm.config, "vocab_size", 0)
        blocks = [classify(block, name, vocab_size) for block in self.recorder.blocks]
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        facts = {
            "num_parameters": num_parameters,
            "trainable_parameters": sum(parameter.numel() for parameter in trained),
            "saved_bytes": sum(parameter.nbytes for parameter in trained or model.parameters()),
            "attention": dict(KERNELS),
            "device": self.recorder.device_type,
            "vocab_size": vocab_size,
        }
        return Trace(blocks, list(self.recorder.events), self.marks, facts)
