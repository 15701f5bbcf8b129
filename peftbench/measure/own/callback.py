"""Record a user's own run: a TrainerCallback that watches the device and torch's counters while the Trainer trains."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from transformers import TrainerCallback

from peftbench.base.errors import PeftbenchError
from peftbench.base.screen import say
from peftbench.inputs.case import TRACKED_STEPS
from peftbench.measure.child.meter import Meter, start_meter, weights_bytes
from peftbench.measure.child.steps import now_s
from peftbench.measure.device.environment import described_by_torch, environment_of
from peftbench.measure.device.open import Device, open_device
from peftbench.measure.device.sampler import Sampler
from peftbench.measure.own.recipe import ReadAdapter, SeenBatches, case_of
from peftbench.memory import Phase
from peftbench.records.curve import SHOWN, thin
from peftbench.records.environment import Outcome
from peftbench.records.run import Measurement, PhasePeak, RunRecord, keep_highest

SUITE = "own"


class RunCallback(TrainerCallback):
    """Marks the phases of the first steps, samples the device to the end, then hands on one record.

    The losses and the time of a step are the user's own affair; memory is that of the steps until `steps`.
    """

    def __init__(self, read_adapter: ReadAdapter, tell: Callable[[RunRecord], None], steps: int = 10) -> None:
        self._read_adapter, self._tell, self._steps = read_adapter, tell, max(steps, TRACKED_STEPS)
        self._batches = SeenBatches()
        self._peaks: dict[tuple[int, Phase], PhasePeak] = {}
        self._marks: list[tuple[float, Phase]] = []
        self._step_s: list[float] = []
        self._step = 0
        self._meter: Meter | None = None
        self._hooks: list[Any] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Find the device, begin to sample it, and listen to the model."""
        self._on_card = args.device.type == "cuda"
        self._device: Device = open_device("cuda" if self._on_card else "cpu")
        self._meter = start_meter(self._on_card, partial(keep_highest, self._peaks), weights_bytes(model))
        self._sampler = Sampler(self._device.reader(os.getpgid(0))).__enter__()
        self._first_s = time.monotonic()
        self._hooks = [
            model.register_forward_pre_hook(self._forward, with_kwargs=True),
            model.register_forward_hook(self._backward),
        ]

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Time begins."""
        self._began_s = now_s(self._device.kind)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Gradients are clipped already: that belongs to backward here."""
        self._mark(Phase.STEP)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Time ends; so does metering, on a CPU after the first steps, because it costs time."""
        took_s = now_s(self._device.kind) - self._began_s
        self._step += 1
        if self._step > TRACKED_STEPS:
            self._step_s.append(took_s)
        if self._step == (self._steps if self._on_card else TRACKED_STEPS):
            self._finish()

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Hand on the record. A recipe that no spec can hold is reported, and the training goes on."""
        self._finish()
        self._sampler.__exit__(None, None, None)
        try:
            case = case_of(model, args, self._batches, len(self._step_s), self._read_adapter)
        except PeftbenchError as error:
            say(f"peftbench: this run cannot be recorded: {error}")
            return
        losses = tuple(float(entry["loss"]) for entry in state.log_history if "loss" in entry)
        losses = tuple(filter(math.isfinite, losses))  # JSON has no others
        environment = environment_of(self._device, described_by_torch(self._on_card))
        found = self._measured(model, losses)
        self._tell(RunRecord(suite=SUITE, case=case, environment=environment, measurement=found))

    def _measured(self, model: Any, losses: tuple[float, ...]) -> Measurement:
        retries = torch.cuda.memory_stats()["num_alloc_retries"] if self._on_card else None
        return Measurement(
            outcome=Outcome.OK, phases=tuple(self._peaks.values()), step_s=tuple(self._step_s), losses=losses,
            alloc_retries=retries,
            trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
            process_peak_bytes=self._sampler.peak("process_bytes"), duration_s=time.monotonic() - self._first_s,
            samples=thin(self._sampler.samples), marks=tuple(self._marks[:SHOWN]),
        )  # fmt: skip

    # ── phases ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _forward(self, module: Any, args: Any, kwargs: Any) -> None:
        if module.training:
            self._batches.see(kwargs)
            self._mark(Phase.FORWARD)

    def _backward(self, module: Any, args: Any, outputs: Any) -> None:
        if module.training:
            self._mark(Phase.BACKWARD)

    def _mark(self, phase: Phase) -> None:
        self._marks.append((time.monotonic() - self._first_s, phase))
        if self._meter:
            self._meter.mark(phase, self._step)

    def _finish(self) -> None:
        meter, self._meter = self._meter, None
        if meter:
            meter.finish()
        for hook in self._hooks if self._step >= self._steps else ():
            hook.remove()
