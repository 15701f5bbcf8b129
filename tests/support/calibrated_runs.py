"""Runs of an L4 whose constants are known: made by hand from the formulas, with other constants than the priors."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace

from run_records import CARD, environment, measurement

from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.models import find_config
from peftbench.check.calibration.time import GROUPS
from peftbench.decide.from_options import training_recipes
from peftbench.decide.suite.predict_case import predict_case
from peftbench.estimate.time.step import constants_of, step_time
from peftbench.inputs.case import Case
from peftbench.memory import Phase
from peftbench.records.environment import Environment, Outcome
from peftbench.records.file import RecordFile
from peftbench.records.run import PhasePeak, RunRecord

VERSIONS = {"torch": "2.13.0", "transformers": "5.23.0", "bitsandbytes": "0.50.2", "peft": "0.21.2"}
PLACE = environment(**{**CARD, "versions": VERSIONS})
L4 = find_gpu("l4")
CONTEXT_BYTES = 700 << 20
SLACK = 1.5
TRUTH = {"efficiency": 1.3, "launch floor": 1.6, "dequantization": 0.6}
"""Factors on the priors."""
GRID = [
    ("lora", {"sequence_length": 64}), ("lora", {"sequence_length": 2048}), ("full", {"sequence_length": 128}),
    ("lora", {"sequence_length": 1024, "gradient_checkpointing": False}), ("qlora", {"sequence_length": 128}),
    ("qlora", {"sequence_length": 2048}), ("qlora", {"sequence_length": 1024, "gradient_checkpointing": False}),
    ("lora", {"sequence_length": 512}), ("full", {"sequence_length": 1024, "optimizer": "adamw_bnb_8bit"}),
]  # fmt: skip


def card_run(
    method: str, options: dict[str, object], place: Environment = PLACE, noise: float = 1.0
) -> RunRecord:
    """A run that took what the formulas say under the true constants, its steps `noise` times as long.

    Launching a small model takes longer than its dequantization, so QLoRA is of a larger one.
    """
    named = find_config("8b" if method == "qlora" else "llama-3.2-1b")
    (recipe,) = training_recipes((method,), options)
    case = Case(id=f"{method} {options}", model=named.name, config=json.dumps(named.config, sort_keys=True),
                recipe=recipe)  # fmt: skip
    profile = predict_case(case, replace(L4, memory_bytes=place.memory_bytes))
    reserved = profile.allocated_bytes + round(SLACK * (profile.reserved_bytes - profile.allocated_bytes))
    usual = constants_of(L4)
    fields = {field: getattr(usual, field) * TRUTH[name] for name, group in GROUPS.items() for field in group.fields}
    step = step_time(named.spec, recipe, L4, constants=usual._replace(**fields))
    assert step is not None
    ended = measurement(
        outcome=Outcome.OK, step_s=tuple(step.step_s * noise * wobble for wobble in (1.0, 0.99, 1.04)),
        phases=(PhasePeak(1, Phase.BACKWARD, profile.allocated_bytes, reserved),),
        device_peak_bytes=reserved + CONTEXT_BYTES,
    )  # fmt: skip
    return RunRecord(suite="l4", case=case, environment=place, measurement=ended)


def card_runs(**options) -> list[RunRecord]:
    """One run a case of the grid."""
    return [card_run(method, recipe, **options) for method, recipe in GRID]


def write_runs(path, records: Iterable[RunRecord]):
    """As `peftbench run` writes them."""
    with RecordFile(path, print) as file:
        for record in records:
            file.append(record)
    return path
