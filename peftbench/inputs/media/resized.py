"""Images that are resized to whole patches, whose features are merged by squares: Qwen-VL, GLM-V, Ernie, Kimi, Gemma 4.

The number of tokens follows the size of the image, between limits.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import ceil, floor, sqrt

from peftbench.base.errors import SpecError
from peftbench.inputs.media.image import Cut, ImageFamily, Size
from peftbench.inputs.media.settings import Settings

LONGEST = 200
"""Times its height, or its width, that an image may be as wide, or as high."""


def smart_resize(height: int, width: int, factor: int, least: int, most: int, frames: int = 1) -> Size:
    """The nearest multiples of `factor` whose pixels, in all frames, are between two limits."""
    if max(height, width) > LONGEST * min(height, width):
        raise SpecError(
            f"an image of {width} x {height} is more than {LONGEST} times as long as it is wide.",
            "This model's processor refuses it: choose an --image-size nearer to a square.",
        )
    high, wide = round(height / factor) * factor, round(width / factor) * factor
    if frames * high * wide > most:
        shrink = sqrt((frames * height * width) / most)
        return tuple(max(factor, floor(side / shrink / factor) * factor) for side in (height, width))  # type: ignore[return-value]
    if frames * high * wide < least:
        grow = sqrt(least / (frames * height * width))
        return ceil(height * grow / factor) * factor, ceil(width * grow / factor) * factor
    return high, wide


def _merged(s: Settings, size: Size, *pixels: int, markers: int = 0) -> Cut:
    """The image as rows of `pixels` numbers, of which a square of merge_size becomes one token."""
    rows = (size[0] // s["patch_size"]) * (size[1] // s["patch_size"])
    return Cut(rows // s["merge_size"] ** 2, rows, size, (rows, *pixels), markers)


def _volume(s: Settings) -> int:
    """Numbers of a patch: an image counts as temporal_patch_size equal frames."""
    return int(3 * s["temporal_patch_size"] * s["patch_size"] ** 2)


def _qwen(s: Settings, height: int, width: int) -> Cut:
    side = s["patch_size"] * s["merge_size"]
    return _merged(
        s, smart_resize(height, width, side, s["size.shortest_edge"], s["size.longest_edge"]), _volume(s)
    )  # fmt: skip


def _glm(s: Settings, height: int, width: int) -> Cut:
    """As Qwen's, but the limits hold for all frames, and an image that is smaller than a token grows first."""
    side, frames = s["patch_size"] * s["merge_size"], s["temporal_patch_size"]
    grow = max(side / height, side / width) if min(height, width) < side else 1
    high, wide = int(height * grow), int(width * grow)
    limits = s["size.shortest_edge"], s["size.longest_edge"]
    return _merged(s, smart_resize(high, wide, side, *limits, frames), _volume(s))


def _kimi(s: Settings, height: int, width: int) -> Cut:
    """Shrunk to limits of all patches and of a side, then padded to whole tokens."""
    patch, longest = s["patch_size"], s["size.max_height"] * s["patch_size"]
    patches = max(1.0, height // patch) * max(1.0, width // patch)
    scale = min(1.0, sqrt(s["max_patches"] / patches), longest / height, longest / width)
    side = patch * s["merge_size"]
    high, wide = (ceil(min(max(1, int(each * scale)), longest) / side) * side for each in (height, width))
    return _merged(s, (high, wide), 3, patch, patch)


def _muse(s: Settings, height: int, width: int) -> Cut:
    """The grid of the nearest shape among the four around the ideal one."""
    side, most = s["patch_size"] * s["merge_size"], s["max_image_tokens"]
    high, wide = height / side, width / side
    if high * wide > most:
        shape = wide / high
        high = (most / shape) ** 0.5
        wide = high * shape
    around = set(product((floor(high), ceil(high)), (floor(wide), ceil(wide))))
    grids = [grid for grid in around if min(grid) >= 1 and grid[0] * grid[1] <= most]
    grids = grids or [(max(1, round(high)), max(1, round(wide)))]
    rows, columns = min(grids, key=lambda grid: abs(grid[0] / grid[1] - height / width))
    return _merged(s, (rows * side, columns * side), _volume(s), markers=2)


def _gemma4_size(s: Settings, height: int, width: int) -> Size:
    """The largest multiples of a pooled patch that stay within the budget of tokens."""
    pool, patch, budget = s["pooling_kernel_size"], s["patch_size"], s["max_soft_tokens"]
    side = pool * patch
    scale = sqrt(budget * pool**2 * patch**2 / (height * width))
    high, wide = floor(scale * height / side) * side, floor(scale * width / side) * side
    if not high:
        return side, min(width // height, budget) * side
    if not wide:
        return min(height // width, budget) * side, side
    return high, wide


def _gemma4(s: Settings, height: int, width: int) -> Cut:
    """Padded to the whole budget of patches, which all go through the tower."""
    pool, patch = s["pooling_kernel_size"], s["patch_size"]
    high, wide = _gemma4_size(s, height, width)
    rows, side = s["max_soft_tokens"] * pool**2, pool * patch
    return Cut((high // side) * (wide // side), rows, (high, wide), (rows, 3 * patch**2), markers=2)


def _gemma4_unified(s: Settings, height: int, width: int) -> Cut:
    """No tower: whole pooled patches are projected."""
    cut, pool = _gemma4(s, height, width), s["pooling_kernel_size"]
    rows = s["max_soft_tokens"]
    return cut._replace(rows=rows, pixels=(rows, 3 * (pool * s["patch_size"]) ** 2))


_TOWER = {"patch_size": "vision_config.patch_size", "merge_size": "vision_config.spatial_merge_size",
          "temporal_patch_size": "vision_config.temporal_patch_size"}  # fmt: skip


def _merging(
    patch: int, least: int, most: int, temporal: int = 2, cut: Callable[[Settings, int, int], Cut] = _qwen
) -> ImageFamily:
    edges = {"size.shortest_edge": least, "size.longest_edge": most}
    return ImageFamily(cut, {"patch_size": patch, "merge_size": 2, "temporal_patch_size": temporal, **edges}, _TOWER)


_QWEN2 = _merging(14, 56 * 56, 28 * 28 * 16384)
"""Limits of the published checkpoints: 4 to 16,384 tokens. The class's most is 1,280."""
_QWEN3 = _merging(16, 256 * 256, 4096 * 4096)
_GLM = _merging(14, 112 * 112, 28 * 28 * 15000, cut=_glm)
_GEMMA4 = ImageFamily(
    _gemma4, {"patch_size": 16, "pooling_kernel_size": 3, "max_soft_tokens": 280},
    {"patch_size": "vision_config.patch_size", "pooling_kernel_size": "vision_config.pooling_kernel_size"},
    batch="stacked",
)  # fmt: skip
FAMILIES = {
    "qwen2_vl": _QWEN2, "qwen2_5_vl": _QWEN2, "exaone4_5": _QWEN2,
    "qwen3_vl": _QWEN3, "qwen3_vl_moe": _QWEN3, "qwen3_5": _QWEN3, "qwen3_5_moe": _QWEN3,
    "glm4v": _GLM, "glm4v_moe": _GLM, "glm46v": _GLM,
    "ernie4_5_vl_moe": _merging(14, 56 * 56, 28 * 28 * 6177, temporal=1),
    "kimi_k25": ImageFamily(
        _kimi, {"patch_size": 14, "merge_size": 2, "max_patches": 16384, "size.max_height": 512},
        {"patch_size": "vision_config.patch_size", "merge_size": "vision_config.merge_kernel_size"},
    ),
    "muse_glimmer": ImageFamily(
        _muse, {"patch_size": 14, "merge_size": 2, "temporal_patch_size": 2, "max_image_tokens": 4096}, _TOWER
    ),
    "gemma4": _GEMMA4,
    "gemma4_unified": _GEMMA4._replace(cut=_gemma4_unified),
}  # fmt: skip
