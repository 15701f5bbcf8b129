"""What a processor makes of images: tokens in the text, rows in the vision tower, pixels on the card."""

from collections.abc import Callable, Mapping
from math import prod
from typing import Any, Literal, NamedTuple

Size = tuple[int, int]
"""Height and width, as the processors have them."""


class Cut(NamedTuple):
    """One image as its processor leaves it."""

    tokens: int
    """Places in the text that features of the image fill."""
    rows: int
    """Patches that go through the vision tower, its class tokens and padding included."""
    size: Size
    """Pixels to which it is resized, all of its tiles together."""
    pixels: tuple[int, ...]
    """Shape of its pixel_values."""
    markers: int = 0
    """Tokens that the processor writes around them: begin, end, breaks, places of tiles. A chat template adds its own.

    Words are not counted: those that Gemma 3 puts before crops.
    """
    tiles: int = 1
    """Pieces that go through the tower, an overview of all included."""
    crossed: int = 0
    """Places that the text sees by cross-attention instead."""
    local_pixels: tuple[int, ...] = ()
    """Shape of pixel_values_local, where tiles come apart from the overview."""


class ImageFamily(NamedTuple):
    """How the processor of a family works; source of each: its image_processing and processing file in transformers."""

    cut: Callable[[Mapping[str, Any], int, int], Cut]
    """Called with the settings, the height and the width in pixels."""
    defaults: Mapping[str, Any]
    """Each setting that `cut` reads, as published checkpoints have it, else as the class does."""
    implied: Mapping[str, str] = {}
    """Where config.json says the same: {"patch_size": "vision_config.patch_size"}."""
    several: Callable[[Mapping[str, Any], int, int], Cut] | None = None
    """How each is cut where a sample has several; None: as one is."""
    batch: Literal["joined", "stacked", "sample", "tiles"] = "joined"
    """How pixel_values hold a batch: rows of all images after one another, an image each, a sample each with its images
    inside, or a sample each with the tiles of all its images inside."""
    pixel_bytes: int = 4
    """Processors compute in float32."""


class Images(NamedTuple):
    """The images of one sample, all of one size."""

    images: int
    cut: Cut
    """Each of them."""
    family: ImageFamily

    @property
    def tokens(self) -> int:
        """Tokens of the sequence that are not text."""
        return self.images * (self.cut.tokens + self.cut.markers)

    @property
    def rows(self) -> int:
        """Rows of the vision tower."""
        return self.images * self.cut.rows

    @property
    def tiles(self) -> int:
        """Pieces that go through the tower."""
        return self.images * self.cut.tiles

    @property
    def crossed(self) -> int:
        """Places that the text sees by cross-attention."""
        return self.images * self.cut.crossed

    def pixel_shape(self, samples: int = 1) -> tuple[int, ...]:
        """pixel_values of a batch of such samples."""
        first, rest = self.cut.pixels[0], self.cut.pixels[1:]
        if self.family.batch == "joined":
            return (samples * self.images * first, *rest)
        if self.family.batch == "stacked":
            return (samples * self.images, *self.cut.pixels)
        if self.family.batch == "sample":
            return (samples, self.images, *self.cut.pixels)
        return (samples, self.images * first, *rest)

    def local_shape(self, samples: int = 1) -> tuple[int, ...]:
        """pixel_values_local of a batch of such samples; () where the family has none, or no image has tiles."""
        local = self.cut.local_pixels
        return (samples * self.images * local[0], *local[1:]) if local else ()

    def pixel_bytes(self, samples: int = 1) -> int:
        """Bytes of both."""
        shapes = (self.pixel_shape(samples), self.local_shape(samples))
        return self.family.pixel_bytes * sum(prod(shape) for shape in shapes if shape)
