"""A field of a recipe, declared once: what it may hold, what help says of it, how screens and tables show it.

The command line, the options of Python and of suites, the checks, JSON, CSV and the header of an answer are made of
these declarations. A field without one is no option.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import field, fields
from enum import Enum
from functools import lru_cache
from math import isfinite
from typing import Any, NamedTuple

from peftbench.base.errors import SpecError, did_you_mean
from peftbench.base.visible import written

MOST = 10_000_000
"""More tokens, sequences or ranks than that are a typing error."""

Value = int | float | str | bool | list[str] | dict[str, int | float | str | bool] | None
"""An option's value in JSON; None where it does not apply."""

_LONGEST_WORD = 10_000
"""Characters of a word; names of modules by the hundred are shorter."""

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a word", dict: "names with values"}


class Option(NamedTuple):
    """One option. A default of None leaves the value to whoever knows more than the spec."""

    name: str
    """With underscores: "lora_dropout"; the field may have another name."""
    field: str
    kind: type
    """bool, int, float, str, an Enum of words, tuple for names, dict for names with plain values."""
    default: Any
    help: str
    choices: tuple[Any, ...] = ()
    """For a bool the words for False and True; for names those that stand alone."""
    unset: Any = None
    """A value that nobody types: None in JSON."""
    least: int | None = None
    most: int | None = None
    below: float | None = None
    default_text: str | None = None
    """What help shows as the default, where that is not the spec's."""
    screen: str | Callable[[Any], str] | None = None
    """Wording in the header of an answer, which joins the one before it where it begins with a space: with {} for the
    value, or a function of the whole spec. None: the name and the value."""
    usual: str | None = None
    """The same for the default value. None: as `screen` where that has a {}, else nothing."""
    column: int | None = None
    """Its place in a row of CSV, from 1. Frozen: a new one takes the number after the last. None: no column."""
    typed: bool = True
    """Whether it is an option of the command line."""
    alone: bool = False
    """A switch without its --no-."""
    after: str = ""
    """The option that it follows in help and on screens, where that is not the one declared before it."""
    held: bool = False
    """Whether it is one of the names with values that the field holds."""

    @property
    def flag(self) -> str:
        """As typed: "--lora-dropout"."""
        return flag(self.name)

    def flat(self, value: Any) -> Value:
        """The field's value as JSON and tables have it."""
        if value is None or value == self.unset:
            return None
        if self.kind is bool:
            return str(self.choices[value]) if self.choices else bool(value)
        if self.kind is tuple:
            return str(value[0]) if len(value) == 1 and value[0] in self.choices else list(value)
        return value.value if isinstance(value, Enum) else value  # type: ignore[no-any-return]

    def parse(self, value: Any) -> Any:
        """The field's value for what was typed, written in a file or passed in Python. Raises SpecError."""
        if self.kind is tuple:
            return _names(value)
        if self.choices and (self.kind is bool or issubclass(self.kind, Enum)):
            self._check_choice(value)
            return bool(self.choices.index(value)) if self.kind is bool else self.kind(value)
        self._check_type(value)
        self.check(value)
        return value

    def check(self, value: Any) -> None:
        """Raise SpecError for a field's value of another type, out of range, or none of the choices."""
        if (value is None and self.default is None) or self.kind is tuple:
            return
        if self.kind in _WORDS:
            self._check_type(value)
        if self.choices and self.kind is not bool:
            self._check_choice(value)
        if self.least is not None and value < self.least:
            wanted = "not be negative" if self.least == 0 else f"be at least {self.least}"
            raise SpecError(f"{self.name} must {wanted} (got {written(value)}).")
        if self.most is not None and value > self.most:
            raise SpecError(f"{self.name} must be at most {self.most:,} (got {written(value)}).")
        if self.below is not None and not value < self.below:
            raise SpecError(f"{self.name} must be less than {self.below:g} (got {written(value)}).")

    def shown(self, spec: Any, value: Value) -> str:
        """The wording in the header of an answer for a value as JSON has it; "" for what goes without saying."""
        if callable(self.screen):
            return self.screen(spec)
        if value is None:
            return ""
        wording = self.usual if value == self.flat(self.default) else self.screen
        return (wording or "").format(value)

    def _check_type(self, value: object) -> None:
        if not _is(self.kind, value):
            raise SpecError(f"{self.flag} must be {_WORDS[self.kind]}, not {written(value)}.")

    def _check_choice(self, value: object) -> None:
        if not isinstance(value, str) or value not in self.choices:
            words = [str(choice) for choice in self.choices]
            near = did_you_mean(value[:60], words) if isinstance(value, str) else ""
            what = f"{self.name} cannot be {written(value)}. {near}".rstrip()
            raise SpecError(what, f"Choose one of {', '.join(words)}.")


def _is(kind: type, value: object) -> bool:
    """Whether the value is of the kind of an option: no truth value is a number, and a number is finite."""
    if kind is dict:
        named = isinstance(value, Mapping) and all(isinstance(name, str) for name in value)
        return named and all(map(_is_plain, value.values()))  # type: ignore[attr-defined]
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, (int, float)) and abs(value) < 1e300 and isfinite(value)
    return isinstance(value, kind) and (kind is not str or len(str(value)) <= _LONGEST_WORD)


def _is_plain(value: object) -> bool:
    """Whether it is a value that an option of PEFT can have: text, or a number that is not beyond all sizes."""
    if isinstance(value, (str, bool)):
        return len(str(value)) <= _LONGEST_WORD
    return _is(float, value) and abs(value) <= 10**18  # type: ignore[arg-type]


def _names(value: Any) -> tuple[str, ...]:
    """Names with commas between, or a sequence of names; each once."""
    listed = value.split(",") if isinstance(value, str) else value
    if not isinstance(listed, (list, tuple, set, frozenset)) or not all(isinstance(name, str) for name in listed):
        raise SpecError(f"target modules must be names, not {written(value)}.", "Write q_proj,v_proj, or all-linear.")
    names = tuple(name.strip() for name in listed)
    if not names or not all(names):
        raise SpecError(f"target modules {written(value)} hold an empty name.", "Write q_proj,v_proj, or all-linear.")
    return tuple(dict.fromkeys(names))


def declared(default: Any, help: str, *, name: str = "", kind: type | None = None, **more: Any) -> Option:
    """An option that is no field; `more` are fields of Option. Choices of an Enum are its members."""
    kind = kind or type(default)
    if issubclass(kind, Enum):
        more["choices"] = tuple(member.value for member in kind)
    if kind is int and "least" in more:
        more.setdefault("most", MOST)
    return Option(name=name, field="", kind=kind, default=default, help=help, **more)


def option(default: Any, help: str, *, holds: tuple[Option, ...] = (), **more: Any) -> Any:
    """A dataclass field that is an option; of names with values, some that it `holds` may be options of their own."""
    return field(default=default, metadata={"options": (*holds, declared(default, help, **more))})


def again(spec: Any, name: str) -> Any:
    """The same field as another spec has."""
    same = next(each for each in fields(spec) if each.name == name)
    return field(default=same.default, metadata=same.metadata)


@lru_cache(maxsize=16)
def options_of(spec: Any) -> tuple[Option, ...]:
    """The options of a class of specs, without those of the specs that it holds, in their order."""
    return tuple(
        _worded(option._replace(name=option.name or each.name, field=each.name))
        for each in fields(spec)
        for option in each.metadata.get("options", ())
    )


def _worded(option: Option) -> Option:
    """With the wordings that follow from its name and from `screen`."""
    if option.screen is None:
        value = "" if option.kind is bool else " {}"
        return option._replace(screen=option.name.replace("_", " ") + value, usual=option.usual or "")
    if isinstance(option.screen, str) and "{}" in option.screen and option.usual is None:
        return option._replace(usual=option.screen)
    return option


def in_order(options: Iterable[Option]) -> list[Option]:
    """As help and screens have them: in the order of the declarations, save for those that follow another one."""
    ordered = list(options)
    for option in [each for each in ordered if each.after]:
        ordered.remove(option)
        ordered.insert(1 + [each.name for each in ordered].index(option.after), option)
    return ordered


def check(spec: Any, **parts: type) -> None:
    """Hold the fields of a spec to their declarations, and those that hold another spec to its class.

    A dtype that was given by its name becomes a DType, a list of names a tuple. Raises SpecError.
    """
    for option, choices, least, most in _limits(spec.__class__):
        value = getattr(spec, option.field)
        usual = type(value) is option.kind and (choices is None or value in choices)
        if not usual or (least is not None and not least <= value <= most):
            option.check(value)
            if value is not None and issubclass(option.kind, (tuple, Enum)):
                object.__setattr__(spec, option.field, option.parse(value))
    for name, kind in parts.items():
        value = getattr(spec, name)
        if not isinstance(value, kind) and (value is not None or spec.__dataclass_fields__[name].default is not None):
            raise SpecError(f"{name} must be of class {kind.__name__}, not {written(value)}.")


@lru_cache(maxsize=16)
def _limits(spec: Any) -> tuple[tuple[Option, tuple[Any, ...] | None, Any, Any], ...]:
    """What most values can be passed by quickly: specs are made by the thousand."""
    checked = [each for each in options_of(spec) if not each.held and each.kind is not dict]
    words = [() if each.kind is tuple else None if each.kind is bool else each.choices or None for each in checked]
    return tuple(
        (each, choices, each.least, each.most or each.least) for each, choices in zip(checked, words, strict=True)
    )


def flag(name: str) -> str:
    """An option as it is typed: "--micro-batch-size"."""
    return "--adapter-option" if name == "adapter_options" else "--" + name.replace("_", "-")
