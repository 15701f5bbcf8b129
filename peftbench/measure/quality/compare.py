"""Compare the predictions of a model's variants on the same blocks of text, block by block."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from peftbench.inputs.comparison import REFERENCE, WITH_ADAPTER, QualityCase, Variant
from peftbench.inputs.recipe import AdapterSpec
from peftbench.measure.child.quantize import (
    bits_per_parameter,
    copy_of,
    quantizable,
    quantize_layers,
    quantized_layers,
    share_not_quantized,
    written_out,
)
from peftbench.measure.quality.adapter import Adapter, attach, build_variant, train_adapter
from peftbench.measure.quality.checks import adapters_of, check, decoder_layers, in_order
from peftbench.measure.quality.lm_eval_tasks import TaskMetric, check_tasks, run_tasks
from peftbench.measure.quality.models import Loaded, load_model
from peftbench.measure.quality.scores import Scores, logits_of, score
from peftbench.measure.quality.text import Text, Tokens, cut, find_text
from peftbench.records.comparison import LayerError, QualityResult

Send = Callable[[dict[str, Any]], None]

BLOCKS_BY_LAYER = 2
"""Blocks that are used where each decoder layer is quantized alone."""
TRAINING = 0.3
"""The share of the progress that stands for what comes before the first variant."""


def compare_quality(case: QualityCase, send: Send) -> Mapping[str, Any]:
    """Every variant; returns the facts of model and text. Raises MeasureError for what cannot be compared."""
    check_tasks(case.tasks)
    text = find_text(case)
    loaded = load_model(case, lambda share: send({"progress": TRAINING * share}))
    trains = bool(case.adapter_steps and adapters_of(case))
    tokens = cut(text, loaded.tokenizer, case, case.block_tokens if trains else 0)
    check(case, loaded.model)
    comparison = _Comparison(case, loaded, tokens, send)
    comparison.run()
    return _facts(case, loaded, text, tokens, comparison.adapters)


def _facts(
    case: QualityCase, loaded: Loaded, text: Text, tokens: Tokens, adapters: dict[AdapterSpec, Adapter]
) -> dict[str, Any]:
    parameters = list(loaded.model.parameters())
    facts: dict[str, Any] = {
        "model": case.model, "model_source": loaded.source, "parameters": sum(tensor.numel() for tensor in parameters),
        "reference_dtype": str(parameters[0].dtype).removeprefix("torch."), "text": case.text,
        "text_source": text.source, "tokens": tokens.blocks.numel(),
        "adapter_losses": [[adapter.losses[0], adapter.losses[-1]] for adapter in adapters.values()],
        "caveat": loaded.caveat, "weights_digest": loaded.weights,
    }  # fmt: skip
    return {name: value for name, value in facts.items() if value}


class _Comparison:
    """Under way: what has been trained and predicted so far."""

    def __init__(self, case: QualityCase, loaded: Loaded, tokens: Tokens, send: Send) -> None:
        self.case, self.tokens, self.send = case, tokens, send
        self.reference, self.tokenizer = loaded.model, loaded.tokenizer
        self.variants = in_order(case)
        self.standards: dict[str, list[torch.Tensor]] = {}
        """Logits of every block, on the CPU."""
        self.adapters: dict[AdapterSpec, Adapter] = {}
        self._done, self._all = 0, self._steps()

    def run(self) -> None:
        """Every result is sent as soon as it is there."""
        for spec in adapters_of(self.case):
            self.adapters[spec] = train_adapter(
                self.reference, spec, self.tokens.rest, self.case.adapter_steps, self.case.block_tokens,
                self.case.seed, self._step,
            )  # fmt: skip
        self._standard(REFERENCE, self.reference)
        if any(variant.standard == WITH_ADAPTER for variant in self.variants):
            first = next(iter(self.adapters.values()))
            self._standard(WITH_ADAPTER, attach(copy_of(self.reference, None, own=True), first))
        for variant in self.variants:
            self._compare(variant)

    def _standard(self, name: str, model: Any) -> None:
        began_s = time.monotonic()
        self._send(name, self._scores(name, model, None), began_s, task_metrics=self._tasks(model))

    def _compare(self, variant: Variant) -> None:
        began_s = time.monotonic()
        adapter = self.adapters[variant.adapter] if variant.adapter else None
        model = build_variant(self.reference, variant, adapter)
        scores = self._scores(variant.name, model, variant.standard)
        more: dict[str, Any] = {}
        if quantized_layers(model):
            more["share_16_bit"] = share_not_quantized(model, self.reference)
            more["bits_per_parameter"] = bits_per_parameter(model)
        if adapter is None:
            more["layers"] = layer_errors(model, self.reference)
        more["task_metrics"] = self._tasks(model)
        del model
        if variant.name == self.case.by_layer:
            more |= self._by_layer(variant)
        self._send(variant.name, scores, began_s, **more)

    def _scores(self, name: str, model: Any, standard: str | None) -> Scores:
        """Its logits are kept where others are compared with it."""
        kept = name in {REFERENCE, *(variant.standard for variant in self.variants)}
        found = Scores()
        for place, block in enumerate(self.tokens.blocks):
            logits = logits_of(model, block)
            found.add(logits, block, self.standards[standard][place] if standard else None)
            if kept:
                self.standards.setdefault(name, []).append(logits.cpu())
            self._step()
        return found

    def _tasks(self, model: Any) -> tuple[TaskMetric, ...]:
        return run_tasks(model, self.tokenizer, self.case.tasks, self.case.task_limit)

    def _by_layer(self, variant: Variant) -> dict[str, Any]:
        """KL to the reference where one decoder layer is quantized and all others are as they were."""
        assert variant.quantization is not None
        blocks = self.tokens.blocks[:BLOCKS_BY_LAYER]
        found = []
        for place, name in enumerate(layer_names(self.reference)):
            model = copy_of(self.reference, None)
            own = {key: layer for key, layer in quantizable(model).items() if key.startswith(f"{name}.")}
            if own:
                quantize_layers(model, own, variant.quantization, variant.dtype)
                kl = score(model, blocks, self.standards[REFERENCE][: len(blocks)]).kl
                found.append((str(place), sum(kl) / len(kl)))
            self._step(len(blocks))
        return {"kl_by_layer": tuple(found), "notes": (f"KL by layer: over the first {len(blocks)} blocks",)}

    def _send(self, name: str, scores: Scores, began_s: float, **more: Any) -> None:
        result = QualityResult(
            variant=name, nll=tuple(scores.nll), kl=tuple(scores.kl), top1=tuple(scores.top1),
            logit_rmse=scores.relative_rmse, logit_max=scores.largest if scores.kl else None,
            seconds=time.monotonic() - began_s, **more,
        )  # fmt: skip
        self.send({"result": asdict(result)})

    # ── progress ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _steps(self) -> int:
        """Blocks that go through a model, and steps of training."""
        blocks = self.case.blocks * (len(self.variants) + 2) + len(adapters_of(self.case)) * self.case.adapter_steps
        layers = len(decoder_layers(self.reference)) if self.case.by_layer else 0
        return blocks + layers * min(self.case.blocks, BLOCKS_BY_LAYER)

    def _step(self, number: int = 1) -> None:
        self._done += number
        self.send({"progress": min(TRAINING + (1 - TRAINING) * self._done / self._all, 1.0)})


def layer_names(model: Any) -> list[str]:
    """The names of the decoder layers: "model.layers.0", …"""
    layers = decoder_layers(model)
    names = {id(module): name for name, module in model.named_modules()}
    return [names[id(layer)] for layer in layers]


# ── the error of weights ──────────────────────────────────────────────────────────────────────────────────────────────


EXACT_DB = 300.0
"""SQNR that stands for no error at all: more than float64 can resolve."""


def layer_errors(model: nn.Module, reference: nn.Module) -> tuple[LayerError, ...]:
    """The error of every matrix that can be quantized. Neither model has an adapter."""
    quantized = quantized_layers(model)
    found = []
    for name, layer in quantizable(reference).items():
        own: Any = model.get_submodule(name)
        weight = written_out(own) if name in quantized else own.weight.float()
        found.append(layer_error(name, weight, layer.weight))
    return tuple(found)


def layer_error(name: str, weight: torch.Tensor, original: torch.Tensor) -> LayerError:
    """sqrt(mean((w' - w)²) / mean(w²)), and the same in decibel; sums in float64."""
    power = float(original.double().square().mean())
    noise = float((weight.double() - original.double()).square().mean())
    if not noise:
        return LayerError(name=name, relative_rmse=0.0, sqnr_db=EXACT_DB)
    return LayerError(name=name, relative_rmse=math.sqrt(noise / power), sqnr_db=10 * math.log10(power / noise))
