"""Reads PYTORCH_CUDA_ALLOC_CONF: the settings of PyTorch's allocator that change how much memory a step needs.

Keys, limits and meanings are those of c10/core/AllocatorConfig.cpp and c10/cuda/CUDAAllocatorConfig.cpp (torch 2.13).
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from peftbench.base.errors import SpecError, did_you_mean
from peftbench.base.units import MIB

_INTERVALS = 16
"""roundup_power2_divisions has a value for each power of two from 1 MiB to 32 GiB; the ends serve all beyond."""


class AllocatorSettings(NamedTuple):
    """What the allocator was told; the defaults are torch's."""

    expandable_segments: bool = False
    """Segments that grow page by page, instead of a cudaMalloc for each."""
    max_split_size_bytes: int | None = None
    """Blocks from this size on are oversize: never split, and kept from smaller requests. None: no such size."""
    max_non_split_rounding_bytes: int = 20 * MIB
    """An oversize request takes a free block only if less than this is left over."""
    roundup_power2_divisions: tuple[int, ...] = ()
    """Steps between two powers of two that sizes are rounded up to, for each interval from 1 MiB on; up to 1: none."""
    garbage_collection_threshold: float = 0.0
    """Share of the allowed memory above which old cached blocks are freed. 0, or no fraction below: never."""
    per_process_memory_fraction: float = 1.0
    """Share of the card that is allowed, as by torch.cuda.set_per_process_memory_fraction(). 1: all, unchecked."""
    large_segment_bytes: int = 20 * MIB
    """The segment that requests of 1 to 10 MiB share, and what expandable segments of the large pool grow by."""


def parse_settings(text: str) -> AllocatorSettings:
    """Read the text of PYTORCH_CUDA_ALLOC_CONF or PYTORCH_ALLOC_CONF: "expandable_segments:True,max_split_size_mb:128".

    Raises SpecError for what torch refuses, and for what it takes but hardly means as written: a key given twice,
    a number that is cut short ("40.5"), cudaMallocAsync.
    """
    given: dict[str, Any] = {}
    for key, value in _items(text):
        if key in _READERS:
            field, read = _READERS[key]
            if field in given:
                raise SpecError(f"allocator setting {key} is given twice.", "Keep one of them.")
            given[field] = read(key, value)
        elif key == "backend":
            _check_backend(value)
        elif key not in _WITHOUT_EFFECT:
            raise _unknown(key)
    return _consistent(given)


def _items(text: str) -> Iterator[tuple[str, str]]:
    """The keys with their values; torch ignores all white space and one comma at the end."""
    packed = "".join(text.split())
    packed = packed.removesuffix(",") or packed
    for item in re.split(r",(?![^\[]*\])", packed) if packed else ():
        key, _, value = item.partition(":")
        if not value:
            raise SpecError(f"allocator settings: {item[:40]!r} is no key with a value.", "Write key:value,key:value.")
        yield key, value


def _consistent(given: dict[str, Any]) -> AllocatorSettings:
    """Check the sizes that torch compares with the large segment, which is also the default of the rounding."""
    given.setdefault("max_non_split_rounding_bytes", given.get("large_segment_bytes", 20 * MIB))
    settings = AllocatorSettings(**given)
    least = settings.large_segment_bytes
    if least <= 10 * MIB:
        raise _bad("large_segment_size_mb", least // MIB, "more than 10")
    if settings.max_split_size_bytes is not None and settings.max_split_size_bytes < least:
        raise _bad("max_split_size_mb", settings.max_split_size_bytes // MIB, f"at least {least // MIB}")
    if settings.max_non_split_rounding_bytes < least:
        rounding = settings.max_non_split_rounding_bytes // MIB
        raise _bad("max_non_split_rounding_mb", rounding, f"at least {least // MIB}")
    return settings


def _bad(key: str, value: object, wanted: str) -> SpecError:
    return SpecError(f"allocator setting {key}:{str(value)[:40]} cannot be.", f"Write {wanted}.")


def _unknown(key: str) -> SpecError:
    known = sorted({*_READERS, *_WITHOUT_EFFECT, "backend"})
    hint = did_you_mean(key, known) or f"Those that change memory: {', '.join(_READERS)}."
    return SpecError(f"PyTorch's allocator has no setting {key[:40]!r}.", hint)


def _check_backend(value: str) -> None:
    if value == "cudaMallocAsync":
        what = "backend:cudaMallocAsync leaves the memory to the CUDA driver's pool, which is not simulated."
        raise SpecError(what, "Leave the backend out, or write backend:native.")
    if value != "native":
        raise _bad("backend", value, "native")


def _flag(key: str, value: str) -> bool:
    if value not in ("True", "False"):
        raise _bad(key, value, f"{key}:True or {key}:False, with a capital letter")
    return value == "True"


def _whole(key: str, value: str) -> int:
    if not re.fullmatch("[0-9]{1,12}", value):
        raise _bad(key, value, "a whole number")
    return int(value)


def _mib(key: str, value: str) -> int:
    return _whole(key, value) * MIB


def _share(key: str, value: str) -> float:
    """Read a number from 0 to 1; the threshold of garbage collection excludes both ends."""
    number = float(value) if re.fullmatch(r"[0-9]*\.?[0-9]+", value) else -1.0
    ends = key == "per_process_memory_fraction"
    if not (0 < number < 1 or (ends and number in (0, 1))):
        raise _bad(key, value, "a number from 0 to 1, as in 0.8" if ends else "a number between 0 and 1, as in 0.8")
    return number


def _divisions(key: str, value: str) -> tuple[int, ...]:
    """Read "4", or "[256:1,512:2,>:8]": divisions of the interval that starts at so many MiB, and of all after it.

    Intervals that are not named stay as they were, but those before the first named one take its value.
    """
    if not value.startswith("["):
        return (_power_of_two(key, value),) * _INTERVALS
    if not value.endswith("]"):
        raise _bad(key, value, "a list in brackets, as in [256:1,512:2,>:8]")
    table = [0] * _INTERVALS
    last, named = 0, False
    for item in filter(None, value[1:-1].split(",")):
        start, _, number = item.partition(":")
        divisions = 0 if number == "0" else _power_of_two(key, number)
        if start == ">":
            table[last + 1 :] = [divisions] * (_INTERVALS - last - 1)
            continue
        last = min(_power_of_two(key, start).bit_length() - 1, _INTERVALS - 1)
        if not named:
            table[:last] = [divisions] * last
        table[last], named = divisions, True
    return tuple(table)


def _power_of_two(key: str, value: str) -> int:
    number = _whole(key, value)
    if number.bit_count() != 1:
        raise _bad(key, value, "powers of two, as in 4 or [256:1,512:2,1024:4,>:8]")
    return number


_READERS: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "expandable_segments": ("expandable_segments", _flag),
    "max_split_size_mb": ("max_split_size_bytes", _mib),
    "max_non_split_rounding_mb": ("max_non_split_rounding_bytes", _mib),
    "roundup_power2_divisions": ("roundup_power2_divisions", _divisions),
    "garbage_collection_threshold": ("garbage_collection_threshold", _share),
    "per_process_memory_fraction": ("per_process_memory_fraction", _share),
    "large_segment_size_mb": ("large_segment_bytes", _mib),
}
"""Keys that change memory: the field, and what reads its value."""

_WITHOUT_EFFECT = frozenset(
    {
        "graph_capture_record_stream_reuse", "release_lock_on_cudamalloc", "release_lock_on_hipmalloc",
        "throw_on_cudamalloc_oom",
        "pinned_free_catch_all", "pinned_max_cached_size_mb", "pinned_max_round_threshold_mb",
        "pinned_num_register_threads", "pinned_reserve_segment_size_mb", "pinned_use_background_threads",
        "pinned_use_cuda_host_register", "pinned_use_hip_host_register",
    }
)  # fmt: skip
"""Keys of speed, of host memory and of CUDA graphs: their values are not looked at."""
