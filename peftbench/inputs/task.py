"""What a model is fine-tuned for, and what its batches hold besides text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from peftbench.base.codec import Count, Within, check_fields
from peftbench.base.errors import SpecError
from peftbench.base.visible import written
from peftbench.inputs.recipe.training import TASK_TYPES

MOST = 1 << 20
Side = Annotated[int, Within(1, MOST)]


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """A task in the words of PEFT and transformers."""

    task_type: str = "auto"
    """"auto": as the config.json's `architectures` says, else as models of its type are trained."""
    num_labels: Annotated[int, Within(1, MOST)] = 2
    """Classes of seq-cls and token-cls."""
    target_length: Annotated[int, Within(0, MOST)] = 0
    """Tokens of the target of seq-2-seq-lm; 0: as many as of the source."""
    images: Count = 0
    """Images of each sample."""
    image_size: tuple[Side, Side] = (1024, 1024)
    """Their width and height in pixels."""
    audio_seconds: Annotated[float, Within(0, 86400)] = 0.0
    """Length of the recording of each sample."""
    freeze_vision_tower: bool = False
    """Train nothing of the vision tower, nor put adapters on it."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.task_type not in ("auto", *TASK_TYPES):
            what = f"task_type must be auto or one of {', '.join(TASK_TYPES)}, not {written(self.task_type)}."
            raise SpecError(what, "Choose one.")


def parse_image_size(text: str) -> tuple[int, int]:
    """Read 1024x768 as width and height."""
    width, times, height = text.lower().partition("x")
    if not (times and width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise SpecError(f"cannot read --image-size {text[:40]!r}.", "Write width and height in pixels: 1024x768.")
    return int(width), int(height)


AUTO = TaskSpec()
"""What the config.json says, on text alone."""
