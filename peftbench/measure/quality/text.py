"""The text that quality is measured on: blocks of tokens to compare on, and the rest of it to train an adapter on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch

from peftbench.base.errors import MeasureError, install_hint
from peftbench.base.files import read_text
from peftbench.inputs.comparison import QualityCase

SAMPLE = Path(__file__).parent / "texts" / "hamlet.txt"
TRAINED_ON = 0.8
"""Share of pydoc's paragraphs that small-llama is trained on; the others are what it is measured on."""
WIKITEXT = ("Salesforce/wikitext", "wikitext-2-raw-v1", "test")
MOST_BYTES = 1 << 30
"""Of a file of text: it is in memory as a whole."""
LETTERS_A_TOKEN = 40
"""No tokenizer takes more on average: what lies further on in a long file is not read."""


class Text(NamedTuple):
    """Letters, and where they are from."""

    letters: str
    source: str


class Tokens(NamedTuple):
    """Both of int64."""

    blocks: torch.Tensor
    """[blocks, block_tokens]; each begins with the token that the tokenizer begins every text with, if any."""
    rest: torch.Tensor
    """[n]: what no block contains, in one piece."""


def find_text(case: QualityCase) -> Text:
    """The text of that name, or of that file. Raises MeasureError and CatalogError."""
    if case.text == "pydoc":
        return Text(pydoc_parts()[1], "pydoc_data.topics of this Python, the fifth that small-llama is not trained on")
    if case.text == "sample":
        return Text(SAMPLE.read_text(encoding="utf-8"), "Hamlet, by William Shakespeare")
    if case.text == "wikitext":
        return _wikitext()
    hint = "Choose sample, pydoc, wikitext or the path of a text file."
    return Text(read_text(case.text, hint, MOST_BYTES), "a file")


def pydoc_parts() -> tuple[str, str]:
    """What small-llama is trained on, and what it has never seen.

    The topics repeat each other's paragraphs (`if` is a part of `compound`), with other underlines and numbers of
    footnotes: each counts once, or text that was trained on would be measured on.
    """
    from pydoc_data.topics import topics

    parts = (part.strip("\n") for name in sorted(topics) for part in topics[name].split("\n\n"))
    paragraphs = list({"".join(filter(str.isalpha, part)): part for part in parts}.values())
    end = int(TRAINED_ON * len(paragraphs))
    return "\n\n".join(paragraphs[:end]), "\n\n".join(paragraphs[end:])


def _wikitext() -> Text:
    try:
        from datasets import load_dataset
    except ImportError:
        raise MeasureError("text wikitext needs datasets.", install_hint("datasets")) from None
    name, config, split = WIKITEXT
    try:
        rows = load_dataset(name, config, split=split)["text"]
    except Exception as error:  # it raises what the network, the Hub and the file formats raise
        what = f"wikitext cannot be fetched ({type(error).__name__})."
        raise MeasureError(what, "It needs the network; text: sample does not.") from None
    return Text("".join(rows), f"{name}, {config}, {split}")


def cut(text: Text, tokenizer: Any, case: QualityCase, adapter_tokens: int) -> Tokens:
    """Blocks from the front, and the rest. Raises MeasureError where there is not enough of it."""
    wanted = case.blocks * case.block_tokens + adapter_tokens
    ids = tokenizer(text.letters[: LETTERS_A_TOKEN * wanted], add_special_tokens=False)["input_ids"]
    if len(ids) < wanted:
        what = f"text {case.text!r} has {len(ids)} tokens, and {wanted} are needed."
        raise MeasureError(what, "Ask for fewer blocks, fewer block_tokens, or give a longer text.")
    start = beginning(tokenizer)
    size = case.block_tokens - len(start)
    rows = [start + ids[place * size : (place + 1) * size] for place in range(case.blocks)]
    return Tokens(torch.tensor(rows), torch.tensor(ids[case.blocks * size :]))


def beginning(tokenizer: Any) -> list[int]:
    """The token that begins every text for models that were trained so; without it Gemma predicts nonsense."""
    bos = tokenizer.bos_token_id
    return [bos] if bos is not None and tokenizer("a")["input_ids"][:1] == [bos] else []
