"""Runs of every kind, made by hand: on a card and on a CPU, well ended and not, with names that mean harm."""

from __future__ import annotations

import json
from dataclasses import replace

from run_records import CARD, environment, measurement

from peftbench.catalog.models import find_config
from peftbench.check.runs.comparison import by_formula
from peftbench.decide.from_options import inference_requests, training_recipes
from peftbench.inputs.case import Case
from peftbench.memory import Phase
from peftbench.records.environment import Outcome
from peftbench.records.run import PhasePeak, RunRecord, Sample

L4 = environment(**{**CARD, "versions": {"torch": "2.13.0", "peft": "0.21.2"}})
HOSTILE = '</script><img src=x onerror=alert(1)>"\'&<!--\u2028=cmd|calc'


def run(
    id: str, place, suite="methods-1b", outcome=Outcome.OK, off=1.02, kind="training", model="llama-3.2-1b", **options
):  # fmt: skip
    """A run whose figures are the estimate's, `off` by a factor."""
    named = find_config(model)
    make = training_recipes if kind == "training" else inference_requests
    (recipe,) = make((options.pop("method", "lora"),), options)
    config = json.dumps(named.config, sort_keys=True)
    case = Case(id=id, model=named.name, config=config, recipe=recipe, device=place.device)
    record = RunRecord(suite=suite, case=case, environment=place, measurement=measurement(outcome=outcome))
    profile = by_formula(record)
    on_card = place.device == "cuda"
    phases = tuple(
        PhasePeak(1, phase, int(profile.allocated_in(phase) * off),
                  int(profile.device_in(phase) * off) if on_card else None)
        for phase in profile.phases
    )  # fmt: skip
    peak = int(profile.device_bytes * off)
    times = [number / 20 for number in range(100)]
    shape = [min(1.0, 0.2 + 0.02 * number) if number < 30 else 0.8 + 0.2 * (number % 7 == 0) for number in range(100)]
    samples = tuple(
        Sample(time_s, int(peak * level) if on_card else None, int(peak * level * 0.98))
        for time_s, level in zip(times, shape, strict=True)
    )
    marks = ((0.0, Phase.LOAD), (1.5, profile.phases[1]), (3.0, profile.phases[-1]))
    found = measurement(
        outcome=outcome, phases=phases, samples=samples, marks=marks, step_s=(0.5 * off, 0.45, 0.7),
        device_peak_bytes=peak if on_card else None, process_peak_bytes=peak, alloc_retries=2 if on_card else None,
        baseline_bytes=0 if on_card else None, message="" if outcome is Outcome.OK else "after 1800 s",
    )  # fmt: skip
    return replace(record, measurement=found)


def samples() -> list[RunRecord]:
    """A dozen."""
    cpu = environment(product="AMD EPYC")
    return [
        run("full sequence_length=512", L4, method="full", sequence_length=512, off=0.97),
        run("full sequence_length=2048", L4, method="full", off=1.01),
        run("lora sequence_length=512", L4, sequence_length=512, off=1.08),
        run("lora sequence_length=2048", L4, off=0.99),
        run("lora-no-checkpointing sequence_length=8192", L4, outcome=Outcome.OOM, sequence_length=8192, off=0.6,
            gradient_checkpointing=False),
        run("qlora sequence_length=512", L4, method="qlora", sequence_length=512),
        run("qlora sequence_length=2048", L4, method="qlora", outcome=Outcome.TIMEOUT),
        run("ia3", L4, method="ia3", off=1.01),
        run("base batch_size=4", L4, "generation", kind="inference", method="full", prompt_tokens=512, batch_size=4),
        run("lora", cpu, "methods-135m", model="smollm2-135m", sequence_length=256, dtype="float32", autocast=False),
        run("prompt-tuning", cpu, "methods-135m", model="smollm2-135m", method="prompt-tuning", off=0.995),
        run(HOSTILE, replace(cpu, product=HOSTILE), HOSTILE, model="smollm2-135m"),
    ]  # fmt: skip
