"""What a model is fine-tuned for, and what its batches hold besides text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from peftbench.base.codec import Within, check_fields
from peftbench.base.errors import SpecError
from peftbench.base.visible import written
from peftbench.inputs.recipe.training import TASK_TYPES

MOST = 1 << 20


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """A task in the words of PEFT and transformers."""

    task_type: str = "auto"
    """"auto": as the config.json's `architectures` says, else as models of its type are trained."""
    num_labels: Annotated[int, Within(1, MOST)] = 2
    """Classes of seq-cls and token-cls."""
    target_length: Annotated[int, Within(0, MOST)] = 0
    """Tokens of the target of seq-2-seq-lm; 0: as many as of the source."""
    audio_seconds: Annotated[float, Within(0, 86400)] = 0.0
    """Length of the recording of each sample."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.task_type not in ("auto", *TASK_TYPES):
            what = f"task_type must be auto or one of {', '.join(TASK_TYPES)}, not {written(self.task_type)}."
            raise SpecError(what, "Choose one.")


AUTO = TaskSpec()
"""What the config.json says, on text alone."""
