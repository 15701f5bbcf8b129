"""The optimizer that the Trainer would make, ready for fake parameters."""

from __future__ import annotations

from typing import Any

import torch

from peftbench.base.errors import did_you_mean
from peftbench.dryrun.trace.trace import Refused


def make_optimizer(
    name: str, parameters: list[torch.nn.Parameter], model: Any, by_trainer: bool
) -> torch.optim.Optimizer:
    """The class and arguments that TrainingArguments.optim stands for; raises Refused for a name it does not have."""
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
    if by_trainer and options.get("optim_bits") == 8:
        _except_embeddings(model)
    if name.startswith("schedule_free"):
        optimizer.train()  # type: ignore[attr-defined]
    return optimizer


def _except_embeddings(model: torch.nn.Module) -> None:
    """What Trainer.create_optimizer does: states of embeddings stay in 32 bit."""
    from bitsandbytes.optim.optimizer import GlobalOptimManager

    manager = GlobalOptimManager.get_instance()
    manager.initialize()  # what it knows of the models before this one
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
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
