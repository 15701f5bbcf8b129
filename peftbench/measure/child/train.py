"""Train for a few steps: with transformers' own Trainer, or with the plain loop that people write themselves."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from peftbench.base.errors import MeasureError
from peftbench.inputs.case import Case
from peftbench.inputs.recipe import TrainingSpec
from peftbench.libraries.adapter import MULTITASK
from peftbench.libraries.model import autocast_dtype, causal_lm_of
from peftbench.measure.child.steps import Steps
from peftbench.memory import Phase


def train(model: Any, case: Case, steps: Steps) -> None:
    """Run every step of the case. Raises MeasureError for what a recipe can state and these libraries cannot do."""
    recipe = case.recipe
    assert isinstance(recipe, TrainingSpec)
    _check(recipe)
    if recipe.gradient_checkpointing and recipe.adapter:
        model.enable_input_require_grads()
    causal_lm_of(model).config.use_cache = recipe.use_cache
    with tempfile.TemporaryDirectory() as folder:
        arguments = _arguments(case, steps, folder)
        (_with_trainer if recipe.loop == "trainer" else _plainly)(model, case, arguments, steps)
    steps.finish()


def _check(recipe: TrainingSpec) -> None:
    """What an estimate and a dry run know of other versions and kernels cannot be run with these."""
    if recipe.transformers != "5" or recipe.loss not in ("transformers", "liger"):
        what = f"loss={recipe.loss}, transformers={recipe.transformers} is not what the installed transformers does."
        raise MeasureError(what, "Measure loss: transformers or liger, with transformers: '5'.")
    liger = recipe.loss == "liger"
    if recipe.fused_kernels != ("liger" if liger else "none"):
        raise MeasureError(
            f"loss={recipe.loss} cannot be measured with fused_kernels={recipe.fused_kernels}.",
            "Liger's kernels and its loss come together; FOAK's cannot be measured.",
        )
    if recipe.zero_grad_keeps and recipe.loop == "trainer":
        raise MeasureError("the Trainer sets gradients to None.", "Use loop: plain.")


def _arguments(case: Case, steps: Steps, folder: str) -> TrainingArguments:
    recipe = case.recipe
    assert isinstance(recipe, TrainingSpec)
    half = half_of(recipe)
    checkpointing = {"use_reentrant": recipe.use_reentrant} if recipe.gradient_checkpointing else None
    return TrainingArguments(
        output_dir=folder, max_steps=steps.total, per_device_train_batch_size=recipe.micro_batch_size,
        gradient_accumulation_steps=recipe.gradient_accumulation_steps, optim=recipe.optimizer,
        learning_rate=case.learning_rate, lr_scheduler_type="constant", use_cache=recipe.use_cache,
        bf16=half is torch.bfloat16, fp16=half is torch.float16, use_liger_kernel=recipe.loss == "liger",
        gradient_checkpointing=recipe.gradient_checkpointing, gradient_checkpointing_kwargs=checkpointing,
        use_cpu=case.device == "cpu", seed=case.seed, logging_strategy="no", save_strategy="no", report_to=[],
        disable_tqdm=True, remove_unused_columns=False, dataloader_pin_memory=False,
    )  # fmt: skip


def half_of(recipe: TrainingSpec) -> torch.dtype | None:
    """What the forward pass computes in on this machine where the recipe has autocast."""
    old = torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 0)
    return autocast_dtype(recipe, has_bfloat16=not old)


class FixedBatch(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """One micro-batch of random tokens, again and again: of one length, so that every step is the same."""

    def __init__(self, case: Case, vocab_size: int, steps: int) -> None:
        recipe = case.recipe
        assert isinstance(recipe, TrainingSpec)
        self.length = steps * recipe.gradient_accumulation_steps * recipe.micro_batch_size
        generator = torch.Generator().manual_seed(case.seed)
        tokens = torch.randint(vocab_size, (recipe.sequence_length,), generator=generator)
        self.row = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": tokens}
        if recipe.padded:
            self.row["attention_mask"][-1] = 0
        if recipe.adapter and recipe.adapter.peft_type in MULTITASK:
            self.row["task_ids"] = torch.tensor(0)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.row

    def batch(self, size: int, device: str) -> dict[str, torch.Tensor]:
        """The micro-batch on its device, as a collator makes it."""
        return {name: torch.stack([tensor] * size).to(device) for name, tensor in self.row.items()}


# ── the Trainer ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _with_trainer(model: Any, case: Case, arguments: TrainingArguments, steps: Steps) -> None:
    data = FixedBatch(case, causal_lm_of(model).config.vocab_size, steps.total)
    trainer = _MarkedTrainer(model=model, args=arguments, train_dataset=data)
    trainer.steps = steps
    trainer.add_callback(_StepCallback(trainer))
    trainer.train()


class _MarkedTrainer(Trainer):
    """The Trainer, saying where it is."""

    steps: Steps
    loss: torch.Tensor

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """A micro-batch."""
        self.steps.mark(Phase.FORWARD)
        return super().training_step(*args, **kwargs)

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """Backward begins when the loss is there."""
        found = super().compute_loss(*args, **kwargs)
        self.loss = (found[0] if isinstance(found, tuple) else found).detach()
        self.steps.mark(Phase.BACKWARD)
        return found

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        self.steps.mark(Phase.STEP)
        return super()._clip_grad_norm(model)


class _StepCallback(TrainerCallback):
    """Takes the time of an optimizer step with all its micro-batches."""

    def __init__(self, trainer: _MarkedTrainer) -> None:
        self.trainer = trainer

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        """Before the first micro-batch."""
        self.trainer.steps.begin()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """After the optimizer."""
        self.trainer.steps.end(float(self.trainer.loss))


# ── the plain loop ──────────────────────────────────────────────────────────────────────────────────────────────────


def _plainly(model: Any, case: Case, arguments: TrainingArguments, steps: Steps) -> None:
    recipe = case.recipe
    assert isinstance(recipe, TrainingSpec)
    data = FixedBatch(case, causal_lm_of(model).config.vocab_size, steps.total)
    if recipe.gradient_checkpointing:
        causal_lm_of(model).gradient_checkpointing_enable(arguments.gradient_checkpointing_kwargs)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
    optimizer = kind(trained, **options)
    half = half_of(recipe)
    model.train()
    outputs: Any = None
    for _ in range(steps.total):
        steps.begin()
        optimizer.zero_grad(set_to_none=not recipe.zero_grad_keeps)
        for _ in range(recipe.gradient_accumulation_steps):
            steps.mark(Phase.FORWARD)
            batch = data.batch(recipe.micro_batch_size, case.device)
            with torch.autocast(case.device, half, enabled=half is not None):
                outputs = model(**batch)  # keeps the outputs of the step before until then, as such loops do
            loss = outputs.loss / recipe.gradient_accumulation_steps
            last = outputs.loss.detach()
            steps.mark(Phase.BACKWARD)
            loss.backward()
            if recipe.loop == "function":
                outputs = None
        steps.mark(Phase.STEP)
        torch.nn.utils.clip_grad_norm_(trained, arguments.max_grad_norm)
        optimizer.step()
        _allocate_ranks(model, steps.number)
        steps.end(float(last))


def _allocate_ranks(model: Any, step: int) -> None:
    """AdaLoRA's own step, which a plain loop calls and the Trainer does not."""
    tuner: Any = getattr(model, "base_model", None)
    if hasattr(tuner, "rankallocator"):
        tuner.update_and_allocate(step)
