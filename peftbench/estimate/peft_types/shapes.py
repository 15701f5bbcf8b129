"""The tensors that each PEFT type adds to a matrix, one function a type: PEFT 0.21 `tuners/<type>/layer.py`.

A matrix has k input and m output features; o holds the type's options. They yield the shapes of one module.
"""

from collections.abc import Iterable, Mapping
from math import isqrt
from typing import Any, NamedTuple

from peftbench.base.errors import SpecError

Options = Mapping[str, Any]
Shape = tuple[int, ...]
Shapes = Iterable[Shape]


class Site(NamedTuple):
    """A kind of module that an adapter is put on."""

    path: str
    k: int
    """in_features; of an embedding the number of tokens."""
    m: int
    """out_features; of an embedding its width; of a norm its size."""
    count: int  # type: ignore[assignment]  # tuple.count is not used
    bias: bool = False
    feedforward: bool = False
    """IA3 scales its input, not its output."""
    branches: int = 1
    """Matrices in one parameter: LoRA gives each of the fused experts a rank of its own."""


def ceil_div(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def must_divide(site: Site, part: int, option: str, *sizes: int) -> None:
    """Raise SpecError unless the option's value divides these sizes of the module."""
    for size in sizes:
        if size % part:
            raise SpecError(
                f"{option}={part} does not divide {size}, a dimension of {site.path}.",
                f"Choose a divisor of {size}, or other target modules.",
            )


def lora(s: Site, o: Options) -> Shapes:
    r = o["r"] * s.branches
    mica = o["init_lora_weights"] == "mica"
    if mica and (o["use_dora"] or o["lora_bias"]):
        raise SpecError("PEFT has no MiCA with DoRA or lora_bias.", "Drop these, or init_lora_weights.")
    yield (r, s.k)
    if not mica:  # which freezes B
        yield (s.m, r)
    if o["use_dora"]:
        yield (s.m,)  # lora_magnitude_vector
    if o["lora_bias"]:
        yield (s.m,)


def low_rank(s: Site, o: Options) -> Shapes:
    """HiRA and others: two factors, as LoRA."""
    yield from ((o["r"], s.k), (s.m, o["r"]))


def adalora(s: Site, o: Options) -> Shapes:
    r = o["init_r"]
    yield from ((r, s.k), (s.m, r), (r, 1), (1,))  # the last is ranknum, trained in 0.21


def lokr(s: Site, o: Options) -> Shapes:
    """Kronecker product of w1 (a x c) and w2 (b x d), each factored where the rank makes that smaller."""
    (a, b), (c, d) = (factorization(size, o["decompose_factor"]) for size in (s.m, s.k))
    r = o["r"]
    yield from ((a, r), (r, c)) if o["decompose_both"] and r < max(a, c) / 2 else ((a, c),)
    yield from ((b, r), (r, d)) if r < max(b, d) / 2 else ((b, d),)


def factorization(size: int, factor: int) -> tuple[int, int]:
    """Split a size into two factors, the first near `factor` or, for -1, both near the square root."""
    if factor > 0 and size % factor == 0:
        return factor, size // factor
    limit = size if factor == -1 else factor
    best = 1
    for a in (d for d in range(2, isqrt(2 * size) + 1) if size % d == 0):
        if best >= size // best or a > limit or a + size // a > best + size // best:
            break
        best = a
    return min(best, size // best), max(best, size // best)


def oft_block(s: Site, o: Options) -> int:
    """Size of the rotated blocks; where it does not divide, PEFT takes the nearest size that does."""
    if o["r"]:
        return s.k // _nearest_divisor(s.k, o["r"])
    return _nearest_divisor(s.k, o["oft_block_size"])


def _nearest_divisor(size: int, wanted: int) -> int:
    if wanted >= size:
        return size
    lower = next(d for d in range(wanted, 0, -1) if size % d == 0)
    higher = next(d for d in range(wanted, size + 1) if size % d == 0)
    return lower if wanted - lower <= higher - wanted else higher


def oft(s: Site, o: Options) -> Shapes:
    block = oft_block(s, o)
    yield (1 if o["block_share"] else s.k // block, block * (block - 1) // 2)


def boft_block(s: Site, o: Options) -> int:
    """Size of BOFT's blocks."""
    number: int = o["boft_block_num"]
    return s.k // number if number else int(o["boft_block_size"])


def boft(s: Site, o: Options) -> Shapes:
    """Without PEFT's CUDA extension the butterfly factor is 1."""
    number = o["boft_block_num"]
    must_divide(s, number or o["boft_block_size"], "boft_block_num" if number else "boft_block_size", s.k)
    block = boft_block(s, o)
    yield from ((1, s.k // block, block, block), (s.m, 1))


def randlora(s: Site, o: Options) -> Shapes:
    smaller = min(s.k, s.m)
    bases = ceil_div(smaller, o["r"])
    yield from ((o["r"], bases), (bases, smaller))


def frequencies(s: Site, o: Options) -> Shapes:
    """FourierFT and WaveFT: one value for each frequency."""
    if o["n_frequency"] > s.k * s.m:
        raise SpecError(f"n_frequency={o['n_frequency']:,} is more than the {s.k * s.m:,} weights of {s.path}.")
    yield (o["n_frequency"],)


def glora(s: Site, o: Options) -> Shapes:
    """W + W*A + B; where the module has a bias also C, D and E: matrices of low rank, vectors, numbers or nothing."""
    r = o["r"]
    change = {"lora": ((s.m, r), (r, s.k)), "vector": ((s.m, 1),), "constant": ((1,),)}
    yield from change.get(o["config_A_B"], ()) * 2
    if s.bias:
        yield from {"lora": ((s.k, r), (r, 1)), "vector": ((s.k, 1),)}.get(o["config_C"], ())
        yield from {"vector": ((s.m,),), "constant": ((1,),)}.get(o["config_D_E"], ()) * 2


def miss(s: Site, o: Options) -> Shapes:
    """One row a rank; `bat` has square blocks, `mini` rows that are repeated."""
    r, kind = o["r"], o["init_weights"]
    if kind == "bat":
        must_divide(s, r, "r", s.k, s.m)
        yield (s.m // r, r, r)
        return
    if kind == "mini":
        must_divide(s, o["mini_r"], "mini_r", s.m)
    yield (r, o["mini_r"] if kind == "mini" else s.m)


def psoft(s: Site, o: Options) -> Shapes:
    """A rotation, or any r x r matrix, and a scale on either side."""
    r = o["r"]
    yield (r * (r - 1) // 2,) if o["psoft_orth"] else (r, r)
    yield from ((r,),) * (o["psoft_mag_a"] + o["psoft_mag_b"])


def lily(s: Site, o: Options) -> Shapes:
    """The Bs side by side, and an A for every `stride_A` layers."""
    yield (o["num_B"] * o["r"], s.m)
    yield from ((o["r"], s.k),) * ceil_div(s.count, o["stride_A"])


def tinylora(sites: Iterable[Site], o: Options) -> Shapes:
    """A vector of each group of modules: as many groups as modules, or by `weight_tying` down to one."""
    modules = sum(site.count for site in sites)
    yield from ((o["u"],),) * max(1, round(modules * (1.0 - o["weight_tying"])))


def road(s: Site, o: Options) -> Shapes:
    sizes = {"road_1": s.m // 2, "road_2": s.m, "road_4": 2 * s.m}
    if o["variant"] not in sizes:
        raise SpecError(f"RoAd has no variant {o['variant']!r}.", f"Choose one of {', '.join(sizes)}.")
    if o["group_size"] % 2:
        raise SpecError(f"RoAd takes an even group_size (got {o['group_size']}).")
    must_divide(s, o["group_size"], "group_size", s.m)
    yield from ((sizes[o["variant"]],),) * 2


def shira(s: Site, o: Options) -> Shapes:
    """As many single weights as LoRA has parameters."""
    if o["r"] * (s.k + s.m) > s.k * s.m:
        raise SpecError(f"r={o['r']} makes more sparse weights than {s.path} has.", "Choose a smaller r.")
    yield (o["r"] * (s.k + s.m),)


def c3a(s: Site, o: Options) -> Shapes:
    block = o["block_size"]
    must_divide(s, block, "block_size", s.k, s.m)
    yield (s.m // block, s.k // block, block)


def gralora(s: Site, o: Options) -> Shapes:
    r, parts, hybrid = o["r"], o["gralora_k"], o["hybrid_r"]
    must_divide(s, parts, "gralora_k", s.k, s.m)
    if r % parts:
        raise SpecError(f"gralora_k={parts} does not divide r={r}.", "Choose a multiple of it for r.")
    yield from ((parts, s.k // parts, r), (parts, r, s.m // parts))
    if hybrid:
        yield from ((hybrid, s.k), (s.m, hybrid))


def deft(s: Site, o: Options) -> Shapes:
    yield (s.m, o["r"])
    if not o["para"]:
        yield (o["r"], s.k)


def peanut(s: Site, o: Options) -> Shapes:
    yield from ((o["r"], s.m), (s.m, o["r"]))
    yield from ((o["r"], o["r"]),) * (2 * o["depth"])


def osf_ranks(s: Site, o: Options) -> tuple[int, int]:
    """Ranks of the frozen and of the trained part of the singular value decomposition."""
    full = min(s.k, s.m)
    kept = min(o["effective_rank"] or full // 2, full)
    if not kept:
        what = f"PEFT's OSF keeps half of a matrix's rank, and {s.path} has a rank of 1."
        raise SpecError(what, "Name other target_modules, or set effective_rank.")
    return kept, full - kept


def osf(s: Site, o: Options) -> Shapes:
    trained = osf_ranks(s, o)[1]
    yield from ((s.m, trained), (trained,), (trained, s.k))


def vblora(s: Site, o: Options) -> Shapes:
    length, vectors = o["vector_length"], o["num_vectors"]
    must_divide(s, length, "vector_length", s.k, s.m)
    yield from ((o["r"], s.k // length, vectors), (s.m // length, o["r"], vectors))


def poly(s: Site, o: Options) -> Shapes:
    splits, skills = o["n_splits"], o["n_skills"]
    must_divide(s, splits, "n_splits", s.k, s.m)
    yield from ((o["n_tasks"], splits * skills), (splits, skills, s.k // splits, o["r"]))
    yield (splits, skills, o["r"], s.m // splits)


def supertuning_values(s: Site, o: Options) -> int:
    """How many single weights are trained."""
    return int(s.k * s.m * (1 - o["sparsity"]))


def supertuning(s: Site, o: Options) -> Shapes:
    yield (supertuning_values(s, o),)
    if o["r"]:
        yield from low_rank(s, o)
