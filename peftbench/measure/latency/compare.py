"""Compare the speed of one model's variants: without an adapter, with adapters beside the weights, with one merged."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from peftbench.base.errors import MeasureError
from peftbench.inputs.comparison import LatencyCase
from peftbench.measure.child.meter import CpuMeter, CudaMeter, Meter
from peftbench.measure.child.model import parameters_of_base
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
    """Build, check, time and tell every variant; returns what the record says of the model and of the measuring.
    Raises MeasureError for what cannot be built, and where equal things did not take equal time."""
    built = _built(case, send)
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
    for other in others:
        variant, own = other.variant, built.variant
        if variant.route == "dynamic" and variant.base == own.base and own.adapter in (None, variant.adapter):
            return other
    return None


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


def _built(case: LatencyCase, send: Send) -> list[Built]:
    built = []
    for each in build_variants(case):
        built.append(each)
        _progress(send, BUILT * len(built) / len(case.variants))
    refuse_unlike(built)
    return built


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
    own = timings[built.variant.name]
    return LatencyResult(
        variant=built.variant.name, prefill_s=tuple(timing.prefill_s for timing in own),
        decode_s=tuple(timing.decode_s for timing in own), **_cpu_times(own), max_logit_difference=difference,
        weights_bytes=weights_bytes(built.model), peak_bytes=peak, load_s=built.load_s, merge_s=built.merge_s,
        operations=tuple(operations), notes=_notes(built),
    )  # fmt: skip


def _cpu_times(timings: Sequence[Timing]) -> dict[str, tuple[float, ...]]:
    """None of a card."""
    return {
        "prefill_cpu_s": tuple(each.prefill_cpu_s for each in timings if each.prefill_cpu_s is not None),
        "decode_cpu_s": tuple(each.decode_cpu_s for each in timings if each.decode_cpu_s is not None),
    }


def _notes(built: Built) -> tuple[str, ...]:
    variant = built.variant
    if variant.route == "merged" and variant.quantization:
        return ("merging quantized the weights once more, which is an error of its own",)
    return ()


def _facts(case: LatencyCase, timings: Timings, checks: Sequence[NullCheck]) -> dict[str, Any]:
    twin = timings[TWIN]
    return {
        "parameters": parameters_of_base(base_weights(case, case.variants[0])), "weights": "random, none from a disk",
        "rounds": len(twin), "clock": "CUDA events" if case.device == "cuda" else "CPU time of the process",
        "null_check": "; ".join(map(str, checks)),
        "twin": {"prefill_s": [each.prefill_s for each in twin], "decode_s": [each.decode_s for each in twin],
                 **{name: list(values) for name, values in _cpu_times(twin).items()}},
    }  # fmt: skip


# ── what a variant holds ──────────────────────────────────────────────────────────────────────────────────────────────


def weights_bytes(model: Any) -> int:
    """Bytes of every storage that the model reaches, each once: parameters, buffers, quantization constants."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in tensors_of(model)}
    return sum(storage.nbytes() for storage in storages.values())


def tensors_of(model: Any) -> Iterator[torch.Tensor]:
    """All, those of the quantization included: absmax and codes of 4-bit weights, the scales of 8-bit ones."""
    for module in model.modules():
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            yield tensor
            yield from _inside(getattr(tensor, "quant_state", None))
            yield from _inside({name: getattr(tensor, name, None) for name in ("CB", "SCB")})
        yield from _inside(getattr(module, "state", None))


def _inside(holder: Any) -> Iterator[torch.Tensor]:
    """Tensors among the attributes of a QuantState, the state nested in it included, or of a MatmulLtState."""
    values = holder.values() if isinstance(holder, dict) else vars(holder).values() if holder is not None else ()
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif type(value).__name__ == "QuantState":
            yield from _inside(value)


def peak_bytes(model: Any, request: Request) -> int:
    """Most bytes allocated at once in a prefill and its decoding, beyond what was allocated before; not a timed run."""
    seen: list[PhasePeak] = []
    meter: Meter = CudaMeter(seen.append) if request.on_card else CpuMeter(seen.append)
    meter.mark(Phase.PREFILL, 0)
    run_once(model, request, lambda: None)
    meter.finish()
    return seen[0].allocated_bytes - (seen[0].held_bytes or 0)
