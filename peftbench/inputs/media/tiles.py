"""Images stretched over the grid of tiles of the nearest shape: InternVL, Aya Vision, LFM2-VL, DeepSeek-OCR 2."""

from __future__ import annotations

from functools import lru_cache
from math import ceil, floor, sqrt

from peftbench.base.errors import SpecError
from peftbench.inputs.media.image import Cut, ImageFamily, Size
from peftbench.inputs.media.settings import Settings

MOST_TILES = 256
"""Sixteen times as many as any processor takes."""


@lru_cache(maxsize=16)
def grids(least: int, most: int) -> tuple[Size, ...]:
    """Columns and rows of every grid of so many tiles, the smallest first."""
    if not least <= most <= MOST_TILES:
        raise SpecError(f"an image processor cannot cut an image into {least:,} to {most:,} tiles.")
    sides = range(1, most + 1)
    found = [(columns, rows) for columns in sides for rows in sides if least <= columns * rows <= most]
    return tuple(sorted(found, key=lambda grid: grid[0] * grid[1]))


def nearest_grid(height: int, width: int, tile: int, least: int, most: int) -> Size:
    """Columns and rows: the nearest shape, and of equal ones the largest that the image fills by half."""
    best, best_miss = (1, 1), float("inf")
    for columns, rows in grids(least, most):
        miss = abs(width / height - columns / rows)
        filled = height * width > 0.5 * tile * tile * columns * rows
        if miss < best_miss or (miss == best_miss and filled):
            best, best_miss = (columns, rows), miss
    return best


def _pieces(s: Settings, height: int, width: int) -> tuple[int, Size]:
    """Tiles and, where there are several, a view of all; and the pixels of the grid."""
    tile = s["size.height"]
    columns, rows = (1, 1)
    if s["crop_to_patches"]:
        columns, rows = nearest_grid(height, width, tile, s["min_patches"], s["max_patches"])
    return columns * rows + (columns * rows > 1), (rows * tile, columns * tile)


def _internvl(s: Settings, height: int, width: int) -> Cut:
    tile = s["size.height"]
    tiles, size = _pieces(s, height, width)
    rows = tiles * ((tile // s["patch_size"]) ** 2 + 1)
    return Cut(tiles * s["image_seq_length"], rows, size, (tiles, 3, tile, tile), 2, tiles)


def _aya(s: Settings, height: int, width: int) -> Cut:
    """A name before each piece, begin and end."""
    tile = s["size.height"]
    tiles, size = _pieces(s, height, width)
    tokens = (tile // (s["patch_size"] * s["downsample_factor"])) ** 2
    rows = tiles * (tile // s["patch_size"]) ** 2
    return Cut(tiles * tokens, rows, size, (tiles, 3, tile, tile), 2 + tiles, tiles)


def _deepseek(s: Settings, height: int, width: int) -> Cut:
    """A square view of all, tiles of their own size where the image is larger than one, and a token between them."""
    view, tile, patch = s["size.height"], s["tile_size"], s["patch_size"]
    columns, rows = 0, 0
    if s["crop_to_patches"] and max(height, width) > tile:
        columns, rows = nearest_grid(height, width, tile, s["min_patches"], s["max_patches"])
    view = view if s["crop_to_patches"] else tile
    tiles, local = columns * rows, (columns * rows, 3, tile, tile) if rows else ()
    tokens = ceil(s["size.height"] / patch / s["downsample_ratio"]) ** 2 + 1
    tokens += tiles * ceil(tile / patch / s["downsample_ratio"]) ** 2
    patches = (view // patch) ** 2 + tiles * (tile // patch) ** 2
    return Cut(tokens, patches, (view, view), (3, view, view), tiles=1 + tiles, local_pixels=local)


def _lfm2(s: Settings, height: int, width: int) -> Cut:
    """Whole, or in tiles with a smaller view; each padded to as many rows as the largest can have."""
    side, tile = s["encoder_patch_size"] * s["downsample_factor"], s["tile_size"]
    high, wide = _lfm2_view(s, height, width)
    columns, rows = _lfm2_grid(s, height, width)
    tiles, view = (columns * rows, int(s["use_thumbnail"])) if columns * rows > 1 else (0, 1)
    tokens = tiles * ceil(tile // s["encoder_patch_size"] / s["downsample_factor"]) ** 2
    tokens += view * (high // side) * (wide // side)
    markers = 2 + (tiles + view if tiles else 0)
    size = (rows * tile, columns * tile) if tiles else (high, wide)
    most = _lfm2_rows(s)
    shape = (tiles + view, most, 3 * s["encoder_patch_size"] ** 2)
    return Cut(tokens, (tiles + view) * most, size, shape, markers, tiles + view)


def _lfm2_rows(s: Settings) -> int:
    """Patches to which a piece is padded."""
    in_tile = (s["tile_size"] // s["encoder_patch_size"]) ** 2 if s["do_image_splitting"] else 0
    return int(max(s["max_image_tokens"] * s["downsample_factor"] ** 2, in_tile))


def _lfm2_grid(s: Settings, height: int, width: int) -> Size:
    """Columns and rows of tiles: one, unless the image is too large for one view."""
    patch, side = s["encoder_patch_size"], s["encoder_patch_size"] * s["downsample_factor"]
    high, wide = (max(patch, round(each / side) * side) for each in (height, width))
    most = s["max_image_tokens"] * side**2 * s["max_pixels_tolerance"]
    if not s["do_image_splitting"] or s["max_tiles"] == 1 or high * wide <= most:
        return 1, 1
    return nearest_grid(height, width, s["tile_size"], s["min_tiles"], s["max_tiles"])


def _lfm2_view(s: Settings, height: int, width: int) -> Size:
    """The image in whole tokens, between two numbers of them."""
    side = s["encoder_patch_size"] * s["downsample_factor"]
    least, most = s["min_image_tokens"] * side**2, s["max_image_tokens"] * side**2
    high, wide = (max(side, round(each / side) * side) for each in (height, width))
    if high * wide > most:
        shrink = sqrt(height * width / most)
        return max(side, floor(height / shrink / side) * side), max(side, floor(width / shrink / side) * side)
    if high * wide < least:
        grow = sqrt(least / (height * width))
        return ceil(height * grow / side) * side, ceil(width * grow / side) * side
    return high, wide


_TOWER = {"size.height": "vision_config.image_size", "patch_size": "vision_config.patch_size"}
_CROPS = {"crop_to_patches": True, "min_patches": 1, "max_patches": 12}
FAMILIES = {
    "internvl": ImageFamily(
        _internvl, {"size.height": 448, "patch_size": 14, "image_seq_length": 256, **_CROPS},
        {**_TOWER, "image_seq_length": "image_seq_length"},
    ),
    "aya_vision": ImageFamily(
        _aya, {"size.height": 364, "patch_size": 14, "downsample_factor": 2, **_CROPS},
        {**_TOWER, "downsample_factor": "downsample_factor"},
    ),
    "deepseek_ocr2": ImageFamily(
        _deepseek,
        {"size.height": 1024, "tile_size": 768, "patch_size": 16, "downsample_ratio": 4,
         "crop_to_patches": True, "min_patches": 2, "max_patches": 6},
        batch="stacked",
    ),
    "lfm2_vl": ImageFamily(
        _lfm2,
        {"encoder_patch_size": 16, "downsample_factor": 2, "tile_size": 512, "min_tiles": 2, "max_tiles": 10,
         "min_image_tokens": 64, "max_image_tokens": 256, "max_pixels_tolerance": 2.0, "do_image_splitting": True,
         "use_thumbnail": True},
        {"encoder_patch_size": "vision_config.patch_size", "downsample_factor": "downsample_factor"},
    ),
}  # fmt: skip
