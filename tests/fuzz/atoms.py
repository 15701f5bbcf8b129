"""Values that are wrong for most options: texts for command lines and files, and objects for Python."""

from __future__ import annotations

import random
from datetime import date
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

ESCAPES = ("\x1b]0;PWN\x07", "\x1b[31mRED\x1b[0m", "\x9b31mC1", "bell\x07", "back\x08space", "\x7f", "car\rriage")
"""What a terminal would act on."""
NUMBERS = (
    "0", "-0", "-1", "1", "2", "3", "+5", "1.5", "1e3", "1e308", "1e999", "1e-999", "-1e999", "nan", "NaN", "inf",
    "-inf", "Infinity", "0x10", "1_000", "1,000", "١٢", "²", "4097", "65537", "2147483648", "9223372036854775808",
    "10000000", "10000001", "1000000000", "9" * 401, "9" * 4400, "-" + "9" * 400,
)  # fmt: skip
WORDS = (
    "", " ", "\t", "none", "None", "null", "true", "false", "auto", "all", "local", "-", "--", "-x", "--model", "=",
    ",", ",,", "a,b", "a=b", "=b", "a=", "[1]", "{}", "[", "~", ".", "./", "%s", "{0}", "$(id)", "'",
    '"', "\\", "*", "a\nb", "é", "日本語", "\u202egnp", "\u2028", "🙂", "\udcff", "a" * 5000, "x" * 300 + "é",
    "<script>alert(1)</script>", "|cell|", "=cmd|calc", "1GiB", "-1GiB", "nanGiB", "1e400GiB", "0GiB", "9TiB",
    "2026-01-01", "12h", "1e9w", "0s", "0xGPU", "2xt4", "-1xt4", "99999999999xt4",
)  # fmt: skip
TEXTS = (*WORDS, *NUMBERS, *ESCAPES)
PATHS = (
    "fifo", "folder", "unreadable", "loop", "broken-link", "empty", "/dev/zero", "/dev/null", "/dev/full",
    "/dev/fd/9999", "/proc/self/mem", ".", "missing", "missing/deep/file", "empty/file", "a" * 300, "/dev/null/x",
)  # fmt: skip
"""Names of special files; `folder_of_cases` in world.py makes those that no system has."""


def text(chance: random.Random) -> str:
    """Any text."""
    if chance.random() < 0.9:
        return chance.choice(TEXTS)
    return "".join(chr(chance.choice((chance.randrange(32, 127), chance.randrange(1, 0x3000)))) for _ in range(8))


NAMES = ("\x1b[31mred", "a\nb", "\x9b1m", "\udcff", "é日本", "a b", "'q\"", "%s{0}$x", "n" * 200, "\u202egnp", "x\r")
"""Names of files that a message might show."""
SETTINGS = {
    "COLUMNS": ("0", "-1", "abc", "1", "7", "99999999999"), "PEFTBENCH_CACHE": PATHS, "PEFTBENCH_CALIBRATION": PATHS,
    "HOME": ("", "missing", "/dev/null"), "XDG_CONFIG_HOME": PATHS, "XDG_CACHE_HOME": PATHS, "TERM": ("", "dumb"),
    "CUDA_VISIBLE_DEVICES": ("", "-1", "0,0", "GPU-1", "nonsense", "٣"),
}  # fmt: skip
"""Of the environment, with values that are wrong."""


class Raw(str):
    """Text that is put into a document as it is, for what no writer of JSON would write."""


RAW_JSON = tuple(map(Raw, (
    "NaN", "Infinity", "-Infinity", "1e999", "9" * 401, "9" * 4400, "-" + "9" * 4400, "[" * 2000, '{"a":' * 1500,
    "0" * 50 + "1", "1.", "tru", '"\\ud800"', '"\\u0000"', '"\\u001b[31m"',
)))  # fmt: skip
RAW_YAML = tuple(map(Raw, (
    "!!bool foo", "!!int ''", "!!int x", "!!float x", "!!timestamp x", "!!timestamp 2026-99-99", "2026-01-01",
    "2026-01-01 10:00:00", "!!binary x", "!!set {a, b}", "!!omap [a: 1]", "!!pairs [a: 1]", "!!omap x",
    "!!python/object/apply:os.system ['true']", "!!python/name:os.system", "!strange x", "&a [*a]", "&a {b: *a}",
    "*unknown", "{<<: {a: 1}}", "{<<: 1}", "{<<: [1]}", "{? [a]: 1}", "{? {a: 1} : 1}", "{a: 1, a: 2}", "1:30:00",
    "0o17", "017", "0b11", "0x1F", ".nan", ".inf", "-.inf", "1e3", "1.0e+3", "~", "yes", "no", "on", "9" * 401,
    "9" * 4400, "[" * 2000, "'unfinished", "|\n", ">-\n", "@at", "`tick", "%tag", "- - -", "!!null x", "1_000",
    "190:20:30:15", "!!str", "!!seq x", "!!map x", "*", "&", "!", "\x1b[31m", "\x85", "\ufeff",
)))  # fmt: skip


class Colour(Enum):
    """A member of something else."""

    RED = "bfloat16"


NOTHING, EMPTY = object(), iter(())


def thing(chance: random.Random) -> Any:
    """Any object that somebody may pass in Python."""
    cycle: list[Any] = []
    cycle.append(cycle)
    things = (
        None, True, False, 0, 1, -1, 2, 3, 64, 4096, 10**7, 10**7 + 1, 10**9, 1 << 62, 10**400, -(10**400), 10**4400,
        0.0, -0.0, 0.5, 1.0, -1.5, 1e308, float("nan"), float("inf"), float("-inf"), 1 + 2j, Decimal("1"), "", " ",
        "64", "bfloat16", "float32", "lora", "all-linear", "q_proj", b"bytes", [], [1], ["q_proj"], (), (1,),
        ("a", "b"), {}, {"a": 1}, {1: 2}, {10**4400: 1}, {None: 1},
        {"r": 8}, set(), {1}, frozenset(), range(3), NOTHING, object, len,
        Colour.RED, cycle,
        Path("."), date(2026, 1, 1), EMPTY, ["a", 1, None], [[[[]]]], (None,), {"a": {"b": []}}, ...,
    )  # fmt: skip
    return chance.choice(things) if chance.random() < 0.85 else text(chance)
