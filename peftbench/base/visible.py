r"""Text that came from outside, made fit to show: nothing of it moves a cursor, hides, turns around or floods a screen.

What is not printable by Unicode's own tables (controls, escapes, marks of direction, zero widths, other separators than
the space, halves of surrogate pairs) is written out as Python writes it: an escape as `\x1b`, a line break as `\n`.
"""

LONGEST_WORD = 160
LONGEST = 1000
"""Characters of a sentence or a cell: the longest of our own have 500."""


def visible(text: str) -> str:
    """The whole text in printable characters; a backslash that was there stays single."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def visible_lines(text: str) -> str:
    """The same, but line breaks are kept."""
    if text.replace("\n", "").isprintable():
        return text
    return "\n".join(map(visible, text.split("\n")))


def one_line(text: str) -> str:
    """The same with a space for every run of white space, where a text of several lines has to be one."""
    return visible(" ".join(text.split()))


def shown(text: str) -> str:
    """Visible, and short enough for a screen: long words and long texts lose their middle."""
    if len(text) <= LONGEST_WORD and text.isprintable():
        return text
    words = (shortened(word, LONGEST_WORD) for word in shortened(visible(text), 8 * LONGEST).split(" "))
    return shortened(" ".join(words), LONGEST)


def quoted(word: str) -> str:
    """The word as a shell takes it, in printable characters: bash and zsh read the bytes of $'\\x1b' as they were."""
    from shlex import quote

    return quote(word) if word.isprintable() else f"$'{''.join(map(_bytes_of, word))}'"


def _bytes_of(letter: str) -> str:
    if letter.isprintable() and letter not in "'\\":
        return letter
    from_bytes = "surrogateescape" if "\udc80" <= letter <= "\udcff" else "surrogatepass"
    return "".join(f"\\x{byte:02x}" for byte in letter.encode("utf-8", from_bytes))


def shown_lines(text: str) -> str:
    """The same for a text of several lines."""
    return shortened("\n".join(map(shown, text.split("\n"))), LONGEST)


def shortened(text: str, most: int) -> str:
    """At most so many characters: the beginning and the end of a longer text."""
    if len(text) <= most:
        return text
    kept = most - 1
    return f"{text[: kept - kept // 3]}…{text[len(text) - kept // 3 :]}"
