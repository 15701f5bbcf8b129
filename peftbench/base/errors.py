"""What went wrong, why, and what to type next: the errors a user can cause."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from peftbench.base.visible import shown, shown_lines


class PeftbenchError(Exception):
    """Bad input, in one message: `what` happened and a `hint` of what to type next."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        """Fit to show, whatever was quoted: `what` is one line, a hint keeps its lines."""
        return f"{shown(self.what)}\n  {shown_lines(self.hint)}" if self.hint else shown(self.what)


class SpecError(PeftbenchError):
    """A recipe, model or card that cannot exist: a value is out of range or two values exclude each other."""


class NoFormula(SpecError):
    """Nothing is wrong, but no formula covers it: a dry run can measure what such an architecture or adapter needs."""


class CatalogError(PeftbenchError):
    """A name that no data file knows, or a data file that cannot be read."""


class MeasureError(PeftbenchError):
    """This machine cannot be measured: no card, no driver, or a missing library."""


class Interrupted(KeyboardInterrupt):
    """A signal asks this process to stop, as Ctrl-C does; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def located(where: str, kind: type[PeftbenchError] | None = None, hint: str = "") -> Iterator[None]:
    """Put the file and line, or the case, before the message of an error that is raised within; as `kind` if given.

    `hint` is for errors that have none of their own.
    """
    try:
        yield
    except PeftbenchError as error:
        raise (kind or type(error))(f"{where}: {error.what}", error.hint or hint) from None


def install_hint(*packages: str, extra: str = "") -> str:
    """"Run: pip install 'peftbench[bench]'": packages by name, or what an extra of peftbench brings.

    An extra is that of the installed peftbench, which pip finds without an index; or of the checkout that runs.
    """
    if extra:
        packages = (*packages, f"'{_own_name()}[{extra}]'")
    return f"Run: pip install {' '.join(packages)}"


def _own_name() -> str:
    from importlib.metadata import PackageNotFoundError, version
    from os.path import abspath, dirname

    try:
        version("peftbench")
    except PackageNotFoundError:
        return dirname(dirname(dirname(abspath(__file__))))
    return "peftbench"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "Did you mean t4?" for a near miss, or an empty string.

    A name that begins with the word comes first: of several one without a further part (blocks, not block_tokens), else
    the first that is known, since tables put plain names first.
    The cutoff is below difflib's default of 0.6, which would miss `t5` for `t4`.
    """
    from difflib import get_close_matches  # only a mistake should pay for the import

    names, word = [name.lower() for name in known], word.lower()
    near = [name for name in names if word and name.startswith(word)]
    near.sort(key=lambda name: name[len(word) :][:1] in tuple("_-./ "))
    near = near or get_close_matches(word, names, n=1, cutoff=0.5)
    return f"Did you mean {near[0]}?" if near else ""
