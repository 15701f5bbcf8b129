"""A small Llama trained on the spot, the same every time: quality can be measured where no weights can be fetched."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from peftbench.libraries.versions import installed_versions

Progress = Callable[[float], None]
"""Given the share that is done."""


@dataclass(frozen=True)
class Recipe:
    """What decides the weights, beside the text and the libraries. Widths are multiples of 256, the largest block
    size that is compared."""

    vocab_size: int = 1024
    hidden_size: int = 256
    intermediate_size: int = 512
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    sequence_length: int = 128
    batch_size: int = 2
    steps: int = 240
    warmup_steps: int = 20
    learning_rate: float = 3e-3
    seed: int = 0


class SmallLlama(NamedTuple):
    """The model in float32, its tokenizer, and whether it was in the cache."""

    model: Any
    tokenizer: Any
    cached: bool


def small_llama(
    text: str, folder: Path, recipe: Recipe | None = None, progress: Progress = lambda share: None
) -> SmallLlama:
    """From the folder where it is there, else trained on the text and kept there. A folder that cannot be read or
    written only costs the time to train it again."""
    recipe = recipe or Recipe()
    place = folder / f"small-llama-{_key(text, recipe)}"
    if (place / "config.json").is_file():
        with suppress(Exception):  # a damaged file shows itself in as many ways as there are readers
            return SmallLlama(*_read(place), cached=True)
    tokenizer = train_tokenizer(text, recipe)
    model = train_model(text, tokenizer, recipe, progress)
    with suppress(OSError):
        _keep(model, tokenizer, place)
    return SmallLlama(model, tokenizer, cached=False)


def digest(model: Any) -> str:
    """A digest of all weights: 16 hexadecimal digits, equal where two machines trained the same model."""
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


# ── training ────────────────────────────────────────────────────────────────────────────────────────────────────────


def train_tokenizer(text: str, recipe: Recipe) -> Any:
    """Byte-level BPE: no text is out of its vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocab_size, special_tokens=["<eos>"], show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>")


def train_model(text: str, tokenizer: Any, recipe: Recipe, progress: Progress) -> Any:
    """AdamW over random windows of the text. On one thread, whose sums are always added in one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            return _train(_new_model(recipe), torch.tensor(tokenizer(text)["input_ids"]), recipe, progress)
    finally:
        torch.set_num_threads(threads)


def _new_model(recipe: Recipe) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(
        vocab_size=recipe.vocab_size, hidden_size=recipe.hidden_size, intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.num_hidden_layers, num_attention_heads=recipe.num_attention_heads,
        num_key_value_heads=recipe.num_key_value_heads, max_position_embeddings=2048, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=0, pad_token_id=0,
    ))  # fmt: skip


def _train(model: Any, tokens: torch.Tensor, recipe: Recipe, progress: Progress) -> Any:
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(  # up for the first steps, then straight down to a twentieth
        optimizer, lambda step: min((step + 1) / recipe.warmup_steps, max(0.05, 1 - step / recipe.steps))
    )
    model.train()
    for step in range(recipe.steps):
        starts = torch.randint(len(tokens) - recipe.sequence_length, (recipe.batch_size,)).tolist()
        batch = torch.stack([tokens[start : start + recipe.sequence_length] for start in starts])
        loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        progress((step + 1) / recipe.steps)
    return model.eval()


# ── on disk ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _key(text: str, recipe: Recipe) -> str:
    versions = installed_versions(("torch", "transformers", "tokenizers"))
    same = json.dumps([asdict(recipe), versions, hashlib.sha256(text.encode()).hexdigest()], sort_keys=True)
    return hashlib.sha256(same.encode()).hexdigest()[:16]


def _read(place: Path) -> tuple[Any, Any]:
    from transformers import AutoTokenizer, LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(place, dtype=torch.float32, use_safetensors=True, local_files_only=True)
    return model, AutoTokenizer.from_pretrained(place, local_files_only=True)


def _keep(model: Any, tokenizer: Any, place: Path) -> None:
    """Written beside its place and then renamed, so that nobody reads half of it; what was there is damaged."""
    place.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=place.parent, prefix=f"{place.name}.part-"))
    try:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        shutil.rmtree(place, ignore_errors=True)
        os.rename(part, place)
    finally:
        shutil.rmtree(part, ignore_errors=True)
