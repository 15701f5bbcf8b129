"""Run the steps of a training recipe on a fake model, as the Trainer or a plain loop runs them."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from peftbench.base.errors import did_you_mean
from peftbench.dryrun.child.batch import WIDENED, audio_batch, contrastive_loss, text_batch
from peftbench.dryrun.child.fused_kernels import fused_kernels
from peftbench.dryrun.child.loss import drops_logits, head_of, install_loss
from peftbench.dryrun.child.older_transformers import OlderTransformers
from peftbench.dryrun.child.peft_config import takes_task_ids
from peftbench.dryrun.fake.card import CARD
from peftbench.dryrun.parallel.ddp import replicate
from peftbench.dryrun.parallel.fsdp import whole_gradients
from peftbench.dryrun.trace.recorder import Recorder
from peftbench.dryrun.trace.trace import EMPTY_CACHE
from peftbench.dryrun.workload import Workload
from peftbench.inputs.recipe import TrainingSpec
from peftbench.libraries.model import autocast_dtype, causal_lm_of, torch_dtype
from peftbench.libraries.refusal import Refused
from peftbench.libraries.task import task_of
from peftbench.memory import Part, Phase

MAX_GRAD_NORM = 1.0
"""TrainingArguments' default."""
MICRO_BATCHES = 2
"""Micro-batches that show what accumulation does; more repeat the second."""
DEFERRED_MICRO_BATCHES = 3
"""The same where the last one alone reduces gradients: the first finds none there."""


class Training:
    """A model in training: the loop's variables are attributes, because what they hold stays alive."""

    def __init__(self, model: Any, workload: Workload, recorder: Recorder) -> None:
        assert isinstance(workload.recipe, TrainingSpec)
        self.recipe, self.workload = workload.recipe, workload
        self.model, self.recorder = model, recorder
        several = DEFERRED_MICRO_BATCHES if self.recipe.defers_reduction else MICRO_BATCHES
        self.micro_batches = min(self.recipe.gradient_accumulation_steps, several)
        self.task = task_of(json.loads(workload.config), workload.task_spec.task_type)
        self.outputs: Any = None
        self.batch: dict[str, torch.Tensor] = {}
        self._prepare()
        self.older = OlderTransformers(causal_lm_of(model), workload, recorder)
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = make_optimizer(self.recipe, self.trained, model)
        self.wrapped = self._wrapped()

    def _wrapped(self) -> Any:
        """What the loop calls: as Accelerate prepares a model, under autocast, and DDP around that."""
        if self.recipe.parallelism.strategy != "ddp":
            return functools.partial(self._compute, self.model)
        self.model.forward = functools.partial(self._compute, self.model.forward)
        return replicate(self.model, self.recipe, self.recorder)

    def _prepare(self) -> None:
        """Checkpointing, cache and loss as the recipe has them."""
        causal_lm = causal_lm_of(self.model)
        causal_lm.config.use_cache = self.recipe.use_cache and not self.recipe.gradient_checkpointing
        if self.recipe.gradient_checkpointing and not causal_lm.supports_gradient_checkpointing:
            self.recorder.notes.append(f"{causal_lm.config.model_type} has no gradient checkpointing: run without.")
        elif self.recipe.gradient_checkpointing:
            if self.recipe.adapter or self.workload.adapter_config:
                self.model.enable_input_require_grads()
            kwargs = {"use_reentrant": self.recipe.use_reentrant}
            causal_lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs=kwargs)
            self._tag_checkpoints()
        if self.task == "causal-lm":
            install_loss(causal_lm, self.recipe)
        elif self.recipe.loss != "transformers":
            raise Refused(f"{self.recipe.loss} is a loss of causal language models.", "Leave out --loss.")
        self.model.train()

    def _tag_checkpoints(self) -> None:
        """What goes into a checkpointed layer is what checkpointing keeps."""

        def tag(module: nn.Module, args: Any, kwargs: Any) -> None:
            self.recorder.is_part(Part.CHECKPOINTS, *args, kwargs.get("hidden_states"))

        for module in self.model.modules():
            if getattr(module, "gradient_checkpointing", False) and head_of(module) is None:
                module.register_forward_pre_hook(tag, with_kwargs=True)

    def run(self) -> None:
        """Every step of the workload, in turn."""
        every = self.workload.empty_cache_steps
        with fused_kernels(causal_lm_of(self.model), self.recipe):
            for step, length in enumerate(self.workload.lengths):
                if self.recipe.loop != "trainer":
                    self._zero_grad()
                for micro_batch in range(self.micro_batches):
                    with self._synchronized(micro_batch == self.micro_batches - 1):
                        self._micro_batch(step, length)
                self._update(step)
                if every and (step + 1) % every == 0:
                    self.recorder.mark(EMPTY_CACHE, step)

    def _micro_batch(self, step: int, length: int) -> None:
        self.recorder.mark(Phase.FORWARD, step)
        self.batch = self._make_batch(length)
        loss = self._forward()
        if self.recipe.loop == "trainer":
            self.older.cache.clear()
        self.recorder.mark(Phase.BACKWARD, step)
        loss.backward()
        if self.recipe.loop == "function":
            self.outputs = None
            self.older.cache.clear()
        self.recorder.is_part(Part.GRADIENTS, *(parameter.grad for parameter in self.trained))
        if self.recipe.defers_reduction:
            self.recorder.is_part(Part.ACCUMULATED, *whole_gradients(self.model))

    @contextlib.contextmanager
    def _synchronized(self, is_last: bool) -> Iterator[None]:
        """Reduce gradients in this micro-batch, or keep them until the last: the Trainer's no_sync."""
        parallelism = self.recipe.parallelism
        waits = not is_last and not self.recipe.sync_each_batch
        if waits and parallelism.strategy == "ddp":
            with self.wrapped.no_sync():
                yield
            return
        if parallelism.shards_weights:
            self.model.set_requires_gradient_sync(not waits)
        yield

    def _make_batch(self, length: int) -> dict[str, torch.Tensor]:
        samples, device = self.recipe.micro_batch_size, self.recorder.device_type
        causal_lm = causal_lm_of(self.model)
        if causal_lm.main_input_name == "input_features":
            like = torch.empty(0, dtype=self._input_dtype(), device=device)
            batch = audio_batch(self.workload, causal_lm.config, samples, length, like)
        else:
            batch = text_batch(self.workload, self.task, samples, length, device)
        if takes_task_ids(self.model):
            batch["task_ids"] = torch.zeros(samples, dtype=torch.long, device=device)
        self.recorder.is_part(Part.WORKSPACE, *batch.values())
        return batch

    def _input_dtype(self) -> torch.dtype:
        """What processors compute in, or the model's where nothing casts it."""
        return torch.float32 if self.recipe.autocast else torch_dtype(self.recipe.dtype)

    def _forward(self) -> torch.Tensor:
        """The loss; a plain loop keeps the outputs until the next forward pass has replaced them, a function as long as
        it runs."""
        outputs = self.wrapped(**self.batch)
        if self.task == "feature-extraction":
            loss = contrastive_loss(outputs, self.wrapped(**self.batch), self.batch["attention_mask"])
        else:
            loss = outputs.loss
        if self.recipe.loop != "trainer":
            self.outputs = outputs
        return loss

    def _compute(self, model: Any, **batch: torch.Tensor) -> Any:
        """The model's outputs. FSDP2 casts weights instead of autocast: _prepare_fsdp2 of Accelerator."""
        half = None if self.recipe.parallelism.shards_weights else autocast_dtype(self.recipe, CARD.has_bfloat16)
        with torch.autocast(self.recorder.device_type, dtype=half) if half else contextlib.nullcontext():
            outputs = model(**batch)
        if drops_logits(self.recipe):
            outputs.logits = None
        elif self.recipe.loop == "trainer" and half:
            for name in WIDENED:  # accelerate's convert_outputs_to_fp32
                if outputs.get(name) is not None:
                    outputs[name] = outputs[name].float()
        return outputs

    def _update(self, step: int) -> None:
        self.recorder.mark(Phase.STEP, step)
        torch.nn.utils.clip_grad_norm_(self.trained, MAX_GRAD_NORM)
        self.optimizer.step()
        for state in self.optimizer.state.values():
            self.recorder.is_part(Part.OPTIMIZER, *state.values())
        self._allocate_ranks(step)
        if self.recipe.loop == "trainer":
            self._zero_grad()

    def _allocate_ranks(self, step: int) -> None:
        """AdaLoRA's own step, which a plain loop calls and the Trainer does not: averages of importance."""
        tuner: Any = getattr(self.model, "base_model", None)
        if self.recipe.loop != "trainer" and hasattr(tuner, "rankallocator"):
            tuner.update_and_allocate(step)
            allocator = tuner.rankallocator
            for averages in (allocator.ipt, allocator.exp_avg_ipt, allocator.exp_avg_unc):
                self.recorder.is_part(Part.OPTIMIZER, *averages.values())

    def _zero_grad(self) -> None:
        self.optimizer.zero_grad(set_to_none=not self.recipe.zero_grad_keeps)


# ── the optimizer ─────────────────────────────────────────────────────────────────────────────────────────────────────


def make_optimizer(recipe: TrainingSpec, parameters: list[nn.Parameter], model: Any) -> torch.optim.Optimizer:
    """The class and arguments that TrainingArguments.optim stands for; raises Refused for a name it does not have."""
    name = recipe.optimizer
    from transformers import TrainingArguments
    from transformers.trainer_optimizer import _OPTIMIZER_HANDLERS, OptimizerContext
    from transformers.training_args import OptimizerNames

    known = [str(optimizer.value) for optimizer in OptimizerNames]
    if name not in known:
        raise Refused(f"unknown optimizer {name!r}.", did_you_mean(name, known) or f"Choose one of {', '.join(known)}.")
    arguments = TrainingArguments(output_dir="unused", optim=name, report_to=[], use_cpu=True)
    context = OptimizerContext(
        args=arguments, model=model, optim_args={}, optimizer_kwargs={"lr": 1e-4},
        adam_kwargs={"betas": (0.9, 0.999), "eps": 1e-8},
    )  # fmt: skip
    try:
        kind, options = _OPTIMIZER_HANDLERS[OptimizerNames(name)](context)
        optimizer: torch.optim.Optimizer = kind(parameters, **options)
    except (ImportError, ValueError) as error:
        raise Refused(f"{name} cannot be made here: {error}", "Install its package, or choose another.") from error
    if getattr(optimizer, "is_paged", False):
        _page_out()
    if recipe.loop == "trainer" and options.get("optim_bits") == 8:
        _except_embeddings(model)
    if name.startswith("schedule_free"):
        optimizer.train()  # type: ignore[attr-defined]
    return optimizer


def _except_embeddings(model: nn.Module) -> None:
    """What Trainer.create_optimizer does: states of embeddings stay in 32 bit."""
    from bitsandbytes.optim.optimizer import GlobalOptimManager

    manager = GlobalOptimManager.get_instance()
    manager.initialize()  # what it knows of the models before this one
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            manager.register_module_override(module, "weight", {"optim_bits": 32})


def _page_out() -> None:
    """Paged states are in managed memory, which torch's allocator never sees: fake tensors on the host here.

    Source: get_paged in bitsandbytes/functional.py.
    """
    from bitsandbytes import functional

    def paged(*shape: int, dtype: torch.dtype = torch.float32, device: Any = None) -> torch.Tensor:
        made = torch.empty(shape, dtype=dtype)
        made.is_paged, made.page_deviceid = True, 0  # type: ignore[attr-defined]
        return made

    nothing: Any = lambda *_, **__: None  # noqa: E731 (a value of any type for two functions)
    functional.get_paged = paged
    functional.fill = functional.prefetch_tensor = nothing
