"""Compare the speed of one model's variants: without an adapter, with adapters beside the weights, with one merged."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from peftbench.base.errors import MeasureError
from peftbench.inputs.comparison import LatencyCase
from peftbench.measure.child.meter import start_meter, weights_bytes
from peftbench.measure.child.model import parameters_of
from peftbench.measure.latency.operations import time_operations
from peftbench.measure.latency.pairs import TWIN, NullCheck, narrow_enough, null_checks, refuse_bias
from peftbench.measure.latency.rounds import Request, Timing, Timings, run_once, run_rounds
from peftbench.measure.latency.variants import Built, base_weights, build_variants, refuse_unlike
from peftbench.memory import Phase
from peftbench.records.comparison import LatencyResult
from peftbench.records.run import PhasePeak

Send = Callable[[dict[str, Any]], None]

BUILT, TIMED = 0.3, 0.9
"""Shares of the whole that are done when the variants are built, and when the rounds are over."""


def compare_latency(case: LatencyCase, send: Send) -> Mapping[str, Any]:
    """Build, check, time and send every variant; returns what the record says of the model and of the measuring.
    Raises MeasureError for what cannot be built, and where equal things did not take equal time."""
    built: list[Built] = []
    for each in build_variants(case):
        built.append(each)
        _progress(send, BUILT * len(built) / len(case.variants))
    refuse_unlike(built)
    request = request_of(case)
    differences = logit_differences(built, request)
    peaks = [peak_bytes(each.model, request) for each in built]
    timings = _timings(case, built, request, send)
    checks = null_checks(case.variants, timings)
    refuse_bias(checks)
    for number, each in enumerate(built):
        _progress(send, TIMED + (1 - TIMED) * number / len(built))
        operations = time_operations(case, each.variant, request) if case.switching else ()
        result = _result(each, timings, peaks[number], differences[each.variant.name], operations)
        send({"result": asdict(result)})
    return _facts(case, timings, checks)


def request_of(case: LatencyCase) -> Request:
    """A prompt of random tokens, on the device."""
    vocabulary = json.loads(case.config)["vocab_size"]
    generator = torch.Generator().manual_seed(case.seed)
    prompt = torch.randint(vocabulary, (case.batch_size, case.prompt_tokens), generator=generator)
    return Request(prompt.to(case.device), case.new_tokens)


def logit_differences(built: Sequence[Built], request: Request) -> dict[str, float | None]:
    """Each variant's largest difference to the dynamic one from the same weights over the prompt; None without one.
    Raises MeasureError where logits are no numbers."""
    return {each.variant.name: _difference(each, _standard(each, built), request) for each in built}


def _standard(built: Built, others: Sequence[Built]) -> Built | None:
    """The first dynamic variant from the same weights, with the same adapter where it has one."""
    own = built.variant
    dynamic = (each for each in others if each.variant.route == "dynamic" and each.variant.base == own.base)
    return next((each for each in dynamic if own.adapter in (None, each.variant.adapter)), None)


def _difference(built: Built, standard: Built | None, request: Request) -> float | None:
    logits = _logits(built.model, request)
    if not logits.isfinite().all():
        what = f"{built.variant.name}: its logits are no numbers."
        raise MeasureError(what, "Choose a dtype with a wider range: bfloat16 or float32.")
    return None if standard is None else float((logits - _logits(standard.model, request)).abs().max())


def _logits(model: Any, request: Request) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=request.prompt).logits
    return found.float()


def _timings(case: LatencyCase, built: Sequence[Built], request: Request, send: Send) -> Timings:
    models = {each.variant.name: each.model for each in built}
    return run_rounds(
        {**models, TWIN: built[0].model}, request, case.seed, case.rounds, case.most_rounds,
        narrow_enough(case.variants, case.interval),
        lambda share: _progress(send, BUILT + (TIMED - BUILT) * share),
    )  # fmt: skip


def _progress(send: Send, share: float) -> None:
    send({"progress": round(share, 4)})


def _result(
    built: Built, timings: Timings, peak: int, difference: float | None,
    operations: Sequence[tuple[str, tuple[float, ...]]],
) -> LatencyResult:  # fmt: skip
    again = built.variant.route == "merged" and built.variant.quantization
    return LatencyResult(
        variant=built.variant.name, **_columns(timings[built.variant.name]), max_logit_difference=difference,
        weights_bytes=weights_bytes(built.model), peak_bytes=peak, load_s=built.load_s, merge_s=built.merge_s,
        operations=tuple(operations),
        notes=("merging quantized the weights once more, which is an error of its own",) if again else (),
    )  # fmt: skip


def _columns(timings: Sequence[Timing]) -> dict[str, tuple[float, ...]]:
    """The rounds' seconds under the names of LatencyResult; on a card those of the CPU are empty."""
    columns = zip(Timing._fields, zip(*timings, strict=True), strict=True)
    return {name: tuple(value for value in values if value is not None) for name, values in columns}


def _facts(case: LatencyCase, timings: Timings, checks: Sequence[NullCheck]) -> dict[str, Any]:
    return {
        "parameters": parameters_of(base_weights(case, case.variants[0])), "weights": "random, none from a disk",
        "rounds": len(timings[TWIN]), "clock": "CUDA events" if case.device == "cuda" else "CPU time of the process",
        "null_check": "; ".join(map(str, checks)),
        "twin": {name: list(values) for name, values in _columns(timings[TWIN]).items()},
    }  # fmt: skip


def peak_bytes(model: Any, request: Request) -> int:
    """Most bytes allocated at once in a prefill and its decoding, beyond what was allocated before; not a timed run."""
    seen: list[PhasePeak] = []
    meter = start_meter(request.on_card, seen.append)
    meter.mark(Phase.PREFILL, 0)
    run_once(model, request, lambda: None)
    meter.finish()
    return seen[0].allocated_bytes - (seen[0].held_bytes or 0)
