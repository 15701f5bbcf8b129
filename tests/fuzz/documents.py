"""Valid documents made wrong: values changed in the tree, or the text itself."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from fuzz.atoms import ESCAPES, NUMBERS, RAW_JSON, RAW_YAML, Raw, text

Tree = Any


def places(tree: Tree, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value below the root."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [place for key, value in items for place in ((*path, key), *places(value, (*path, key)))]


def mutated(tree: Tree, chance: random.Random, raw: tuple[Raw, ...] = RAW_JSON) -> Tree:
    """A copy in which one value, or a few, are something else."""
    changed = deepcopy(tree)
    for _ in range(chance.choice((1, 1, 1, 1, 2, 3, 8))):
        known = places(changed)
        if not known:
            return wrong(chance, raw)
        *path, last = chance.choice(known)
        holder = changed
        for key in path:
            holder = holder[key]
        _change(holder, last, chance, raw)
    return changed


def _change(holder: Any, key: Any, chance: random.Random, raw: tuple[Raw, ...]) -> None:
    """One of: gone, renamed, wrapped, another type, another number, another's value."""
    value, what = holder[key], chance.randrange(9)
    if what == 0:
        del holder[key]
    elif what == 1 and isinstance(holder, dict):
        del holder[key]
        holder[str(key)[:-1] if chance.random() < 0.5 else text(chance)] = value
    elif what == 2:
        holder[key] = chance.choice(([value], {"a": value}, [value, value], {str(value)[:20]: value}))
    elif what == 3:
        holder[key] = _near(value, chance)
    elif what == 4:
        holder[key] = deepcopy(chance.choice(list(holder.values() if isinstance(holder, dict) else holder)))
    else:
        holder[key] = wrong(chance, raw)


def _near(value: Any, chance: random.Random) -> Any:
    """A value of the same type, or its text: the mistakes that people make."""
    if isinstance(value, bool):
        return chance.choice((not value, int(value), str(value).lower()))
    if isinstance(value, (int, float)):
        return chance.choice((-value, value + 1, value * 2, value * 10**6, value * 10**12, value / 3, str(value), 0, 1))
    if isinstance(value, str):
        return chance.choice((value + "x", value[:-1], value.upper(), value + chance.choice(ESCAPES), value * 50))
    return chance.choice(([], {}, [value] * 3))


def wrong(chance: random.Random, raw: tuple[Raw, ...]) -> Any:
    """A value that is wrong in most places."""
    if chance.random() < 0.3:
        return chance.choice(raw)
    return chance.choice((
        None, True, False, 0, 1, -1, 10**9, -(10**12), 1 << 63, 0.5, -0.5, 1e300, 1e-300, "", "64", "false", "x" * 3000,
        [], {}, [1, "a", None], {"a": {"b": [1]}}, [[]], {"": 0}, chance.choice(ESCAPES), text(chance),
        Raw(chance.choice(NUMBERS)), "\ud800", "\u2028", 3, 7, 64,
    ))  # fmt: skip


def json_text(tree: Tree, indent: int | None = None) -> str:
    """As JSON, raw pieces as they are."""
    pieces: list[str] = []

    def kept(value: Any) -> Any:
        if isinstance(value, Raw):
            pieces.append(str(value))
            return f"@@{len(pieces) - 1}@@"
        if isinstance(value, dict):
            return {str(key): kept(each) for key, each in value.items()}
        return [kept(each) for each in value] if isinstance(value, (list, tuple)) else value

    return re.sub(r'"@@(\d+)@@"', lambda found: pieces[int(found[1])], json.dumps(kept(tree), indent=indent))


def yaml_text(tree: Tree) -> str:
    """As YAML, whose mappings below the first are written as JSON."""
    if not isinstance(tree, dict):
        return json_text(tree)
    return "".join(f"{key if str(key).isidentifier() else json.dumps(str(key))}: {json_text(value)}\n"
                   for key, value in tree.items())  # fmt: skip


LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
_SPOIL: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    lambda text, chance: text[: chance.randrange(len(text) + 1)],
    lambda text, chance: text[chance.randrange(len(text) + 1) :],
    lambda text, chance: b"\xef\xbb\xbf" + text,
    lambda text, chance: text.replace(b"\n", b"\r\n"),
    lambda text, chance: text.replace(b"\n", b"\r"),
    lambda text, chance: text.decode("utf-8", "replace").encode("utf-16"),
    lambda text, chance: text.decode("utf-8", "replace").encode("utf-32"),
    lambda text, chance: b"",
    lambda text, chance: b"\n" * 3,
    lambda text, chance: text + text,
    lambda text, chance: text + b"\0",
    lambda text, chance: text + b"\n---\n" + text,
    lambda text, chance: b"[" * 5000,
    lambda text, chance: LAUGHS.encode() + text,
    lambda text, chance: text.replace(b":", b":\t", 1),
    lambda text, chance: text.replace(b" ", b"\t"),
    lambda text, chance: text.replace(b'"', b"'"),
    lambda text, chance: text.replace(b"e", b"\xe9", 2),
    lambda text, chance: bytes(chance.randrange(256) for _ in range(200)),
    lambda text, chance: re.sub(rb'("\w+"):', rb"\1: 1, \1:", text, count=1),
    lambda text, chance: re.sub(rb"^(\w+):", rb"\1: 1\n\1:", text, count=1, flags=re.MULTILINE),
)


def spoilt(content: bytes, chance: random.Random) -> bytes:
    """The text cut, turned, doubled, in another encoding, with flipped bytes."""
    if chance.random() < 0.35 and content:
        flipped = bytearray(content)
        for _ in range(chance.choice((1, 1, 2, 8))):
            flipped[chance.randrange(len(flipped))] = chance.choice((chance.randrange(256), *b'{}[]":,-0\n \t#&*!'))
        return bytes(flipped)
    return chance.choice(_SPOIL)(content, chance)


def wrong_json(tree: Tree, chance: random.Random, indent: int | None = None) -> bytes:
    """The document with something wrong in it; one in six with a wrong text."""
    if chance.random() < 0.17:
        return spoilt(json_text(tree, indent).encode(), chance)
    return json_text(mutated(tree, chance), indent).encode("utf-8", "surrogatepass")


def wrong_yaml(tree: Tree, chance: random.Random) -> bytes:
    """The same for YAML."""
    if chance.random() < 0.17:
        return spoilt(yaml_text(tree).encode(), chance)
    return yaml_text(mutated(tree, chance, RAW_YAML)).encode("utf-8", "surrogatepass")
