"""Which model_type reads images how: the look-up that everything outside of this folder asks."""

from __future__ import annotations

from collections.abc import Mapping

from peftbench.base.errors import SpecError
from peftbench.inputs.media import canvas, fixed, patch_rows, pinpoints, resized, splits, tiles
from peftbench.inputs.media.image import ImageFamily, Images
from peftbench.inputs.media.settings import Settings, settings

FAMILIES = {
    name: family
    for mechanism in (resized, patch_rows, fixed, pinpoints, tiles, canvas, splits)
    for name, family in mechanism.FAMILIES.items()
}
"""By model_type; "llava/pixtral" where the tower's decides too."""
LONGEST_SIDE = 100_000
"""Pixels; more are a typing error."""


def image_family(config: Mapping[str, object]) -> ImageFamily | None:
    """The row of a multimodal config.json; None where it reads no images, or nothing is known of how."""
    vision = config.get("vision_config")
    tower = vision.get("model_type") if isinstance(vision, Mapping) else None
    name = config.get("model_type")
    return FAMILIES.get(f"{name}/{tower}") or FAMILIES.get(str(name))


def images_of(
    config: Mapping[str, object], width: int, height: int, images: int = 1, processor: Mapping[str, object] = {}
) -> Images:
    """What so many images of one size become; `processor` is preprocessor_config.json, where that says otherwise.

    Raises SpecError for a model that reads none, and for a size that its processor refuses.
    """
    family = image_family(config)
    if family is None:
        raise SpecError(
            f"nothing is known of how {str(config.get('model_type'))[:60]!r} reads images.",
            "Leave --images out to plan for text only.",
        )
    if not (0 < width <= LONGEST_SIDE and 0 < height <= LONGEST_SIDE):
        raise SpecError(f"an image has sides of 1 to {LONGEST_SIDE:,} pixels, not {width} x {height}.")
    cut = (family.several or family.cut) if images > 1 else family.cut
    chosen = settings(family.defaults, family.implied, config, processor)
    _check_patch(chosen)
    return Images(images, cut(chosen, height, width), family)


def _check_patch(chosen: Settings) -> None:
    """A patch must fit into the square that the tower sees, where that has one size."""
    patch, side = chosen.get("patch_size", 1), chosen.get("size.height") or chosen.get("crop_size.height")
    if side is not None and patch > side:
        raise SpecError(
            f"no patch of {patch:,} pixels fits into a tile of {side:,}.",
            "Correct patch_size or image_size in config.json.",
        )
