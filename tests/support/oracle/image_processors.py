"""transformers' own image processors, without their tokenizers: what each makes of a blank image."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

import torch
from oracle.image_cases import Case

WRITTEN = re.compile(r"<[^<>]*>|\n+")
"""A token of what a processor puts in place of an image; line ends in a row are one."""

PLACES = ("<i>", "<|patch|>")
"""What stands for features of the image; Llama 4's is not to be chosen."""


def _load(path: str) -> Any:
    module, name = path.rsplit(".", 1)
    return getattr(import_module(f"transformers.models.{module}"), name)


def image_processor(case: Case) -> Any:
    """It only resizes and cuts, unless the case says that it computes too."""
    return _load(case.images)(**{"do_rescale": False, "do_normalize": False, **case.processor, **case.options})


def processed(case: Case, height: int, width: int, images: int = 1) -> Any:
    """What the image processor returns for one sample of blank images."""
    blank = torch.zeros(3, height, width, dtype=torch.uint8)
    return image_processor(case)([[blank] * images] if images > 1 else [blank], return_tensors="pt")


def tokens_and_markers(case: Case, found: Any) -> tuple[int, int]:
    """How many of each its processor writes in place of the first image."""
    text = _load(case.text).__new__(_load(case.text))
    known = {"image_token": PLACES[0], "image_processor": image_processor(case), **case.attributes}
    for name, value in known.items():
        setattr(text, name, value)
    more = {"use_image_special_tokens": True} if "lfm2" in case.text else {}
    written = WRITTEN.findall(text.replace_image_token(found, 0, **more))
    places = sum(map(written.count, PLACES))
    return places, len(written) - places
