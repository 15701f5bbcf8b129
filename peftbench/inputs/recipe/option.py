"""A field of a recipe, declared once: what it may hold, what help says of it, how screens and tables show it.

The command line, the options of Python and of suites, the checks, JSON, CSV and the header of an answer are made of
these declarations. A field without one is no option.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import field, fields
from enum import Enum
from functools import lru_cache
from typing import Any, NamedTuple

from peftbench.base.errors import SpecError, did_you_mean

MOST = 10_000_000
"""More tokens, sequences or ranks than that are a typing error."""

Value = int | float | str | bool | list[str] | dict[str, int | float | str | bool] | None
"""An option's value in JSON; None where it does not apply."""

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
        if (value is None and self.default is None) or self.kind in (tuple, dict):
            return
        if self.kind in _WORDS:
            self._check_type(value)
        if self.choices and self.kind is not bool:
            self._check_choice(value)
        if self.least is not None and value < self.least:
            wanted = "not be negative" if self.least == 0 else f"be at least {self.least}"
            raise SpecError(f"{self.name} must {wanted} (got {value}).")
        if self.most is not None and value > self.most:
            raise SpecError(f"{self.name} must be at most {self.most:,} (got {value}).")
        if self.below is not None and not value < self.below:
            raise SpecError(f"{self.name} must be less than {self.below:g} (got {value}).")

    def shown(self, spec: Any, value: Value) -> str:
        """The wording in the header of an answer for a value as JSON has it; "" for what goes without saying."""
        if callable(self.screen):
            return self.screen(spec)
        if value is None:
            return ""
        wording = self.usual if value == self.flat(self.default) else self.screen
        return (wording or "").format(value)

    def _check_type(self, value: object) -> None:
        known: Any = {float: (float, int), dict: Mapping}.get(self.kind, self.kind)
        if not isinstance(value, known) or (isinstance(value, bool) and self.kind is not bool):
            raise SpecError(f"{self.flag} must be {_WORDS[self.kind]}, not {value!r}.")

    def _check_choice(self, value: object) -> None:
        if value not in self.choices:
            words = [str(choice) for choice in self.choices]
            near = did_you_mean(value, words) if isinstance(value, str) else ""
            raise SpecError(f"{self.name} cannot be {value!r}. {near}".rstrip(), f"Choose one of {', '.join(words)}.")


def _names(value: Any) -> tuple[str, ...]:
    """Names with commas between, or a sequence of names; each once."""
    names = tuple(str(name).strip() for name in (value.split(",") if isinstance(value, str) else value))
    if not names or not all(names):
        raise SpecError(f"target modules {value!r} hold an empty name.", "Write q_proj,v_proj, or all-linear.")
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


def check(spec: Any) -> None:
    """Raise SpecError for a field whose value cannot be."""
    for option, choices, least, most in _limits(spec.__class__):
        value = getattr(spec, option.field)
        usual = type(value) is option.kind and (choices is None or value in choices)
        if not usual or (least is not None and not least <= value <= most):
            option.check(value)


@lru_cache(maxsize=16)
def _limits(spec: Any) -> tuple[tuple[Option, tuple[Any, ...] | None, Any, Any], ...]:
    """What most values can be passed by quickly: specs are made by the thousand."""
    checked = (each for each in options_of(spec) if not each.held and each.kind not in (tuple, dict))
    return tuple(
        (each, None if each.kind is bool else each.choices or None, each.least, each.most if each.most else each.least)
        for each in checked
    )


def flag(name: str) -> str:
    """An option as it is typed: "--micro-batch-size"."""
    return "--adapter-option" if name == "adapter_options" else "--" + name.replace("_", "-")
