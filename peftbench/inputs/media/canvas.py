"""Images laid on a canvas of square tiles by how much they grow or shrink: Llama 3.2 Vision, Llama 4, Command A."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import c_float

from peftbench.inputs.media.image import Cut, ImageFamily, Size
from peftbench.inputs.media.settings import Settings
from peftbench.inputs.media.tiles import grids


def _exact(number: float) -> float:
    return number


def _float32(number: float) -> float:
    return c_float(number).value


def best_canvas(
    height: int, width: int, tile: int, most: int, rounded: Callable[[float], float] = _exact, widest: bool = False
) -> Size:
    """Rows and columns of tiles: that which enlarges the image least or, where all shrink it, shrinks it least.

    `widest` enlarges it most. Of equal ones the fewest tiles. `rounded` is the type that the scales are compared in.
    """
    canvases = grids(1, most)  # each shape lies in it both ways
    scales = [min(rounded(rows * tile / height), rounded(columns * tile / width)) for rows, columns in canvases]
    larger = [scale for scale in scales if scale >= 1]
    chosen = (max(larger) if widest else min(larger)) if larger else max(scales)
    return canvases[scales.index(chosen)]


def _mllama(s: Settings, height: int, width: int) -> Cut:
    """One token in the text, which sees the tiles by cross-attention; missing tiles are padded.

    The tower pads a tile and its class token to a multiple of 8 rows.
    """
    tile, most = s["size.height"], s["max_image_tiles"]
    rows, columns = best_canvas(height, width, tile, most)
    seen = (tile // s["patch_size"]) ** 2 + 1
    shape = (most, 3, tile, tile)
    return Cut(1, most * (-(-seen // 8) * 8), (rows * tile, columns * tile), shape, tiles=most, crossed=most * seen)


def _llama4(s: Settings, height: int, width: int) -> Cut:
    """Begin, end, a name for the view, and where there are tiles a sign after each. Scales are compared in float32."""
    tile = s["size.height"]
    rows, columns = best_canvas(height, width, tile, s["max_patches"], _float32, s["resize_to_max_canvas"])
    tiles = rows * columns + (rows * columns > 1)
    side = tile // s["patch_size"]
    tokens = side**2 // round(1 / s["pixel_shuffle_ratio"] ** 2)
    size, shape = (rows * tile, columns * tile), (tiles, 3, tile, tile)
    return Cut(tiles * tokens, tiles * (side**2 + 1), size, shape, 3 + (tiles - 1 if tiles > 1 else 0), tiles)


def _cohere2(s: Settings, height: int, width: int) -> Cut:
    """Begin, end, and a line end after each piece."""
    tile = s["size.height"]
    rows, columns = (1, 1)
    if s["crop_to_patches"]:
        rows, columns = best_canvas(height, width, tile, s["max_patches"])
    tiles = rows * columns + (rows * columns > 1)
    tokens = (tile // (s["patch_size"] * s["downsample_factor"])) ** 2
    size, shape = (rows * tile, columns * tile), (tiles, 3, tile, tile)
    return Cut(tiles * tokens, tiles * (tile // s["patch_size"]) ** 2, size, shape, 2 + tiles, tiles)


_TOWER = {"size.height": "vision_config.image_size", "patch_size": "vision_config.patch_size"}
FAMILIES = {
    "mllama": ImageFamily(
        _mllama, {"size.height": 560, "patch_size": 14, "max_image_tiles": 4},
        {**_TOWER, "max_image_tiles": "vision_config.max_num_tiles"}, batch="sample",
    ),
    "llama4": ImageFamily(
        _llama4,
        {"size.height": 336, "patch_size": 14, "max_patches": 16, "pixel_shuffle_ratio": 0.5,
         "resize_to_max_canvas": False},
        {**_TOWER, "pixel_shuffle_ratio": "vision_config.pixel_shuffle_ratio"}, pixel_bytes=2,
    ),
    "cohere2_vision": ImageFamily(
        _cohere2,
        {"size.height": 512, "patch_size": 16, "downsample_factor": 2, "crop_to_patches": True, "max_patches": 12},
        {**_TOWER, "downsample_factor": "downsample_factor"},
    ),
}  # fmt: skip
