"""Values and texts that came from outside -> what may be printed of them: short, on one line,
without secrets.

A terminal obeys control characters, and reads right-to-left marks as an order of words; both are
escaped here as Python writes them.
"""

import re
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

MOST_LETTERS = 80
"""Of a value in a message."""
MOST_PROBLEMS = 50
"""Printed for one command; the rest is counted."""

# C0 and C1 controls, Unicode's line ends, marks that turn the direction of text (UAX #9, section
# 2), halves of surrogate pairs
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
# ECMA-48, 5.4 (CSI: colours, cursor) and 8.3.89 (OSC: titles, links)
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
_SECRET_WORDS = re.compile(
    r"(^|[^a-z])(secret|token|password|passwd|pwd|credentials?|signature|"
    r"(api|access|private|secret)[._-]?keys?|apikey)([^a-z]|$)"
)
_HUB_REVISION = r"(?<=\bhf:/)/(?:datasets/)?[\w.-]+/[\w.-]+@"
_USER = re.compile(rf"(?<=:/)(?!{_HUB_REVISION})(/?)[^\s'\"]+@")
_QUERY = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s'\"?#]*)\?[^\s'\"#]+", re.IGNORECASE)
_FRAGMENT = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s'\"#]*)#(?!/)[^\s'\"]+", re.IGNORECASE)
_SIGNED_PATH = re.compile(
    r"\?[^\s'\"]*(signature|credential|token|secret|password|key)[^\s'\"]*", re.IGNORECASE
)
_MORE = re.compile(r"and (\d+) more problems")


def printable(text: str) -> str:
    """The text on one line, with control characters escaped: `\\x1b` for the one that begins a
    terminal's commands."""
    return _UNPRINTABLE.sub(_escaped, text)


def printable_lines(text: str) -> str:
    """As `printable`, but line ends and tabs stay."""
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


def without_escapes(text: str) -> str:
    """The text without the colours and other commands for a terminal that a program wrote into
    it."""
    return _ESCAPES.sub("", text)


def markdown_code(text: str) -> str:
    """The text as code in Markdown, whatever it holds (CommonMark, section 6.1): more backticks
    around it than any row inside has."""
    text = printable(text)
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    if "`" in text:
        space = " "
    else:
        space = ""
    return f"{fence}{space}{text}{space}{fence}"


def without_secrets(text: str) -> str:
    """Addresses in the text have no user, no query and no fragment. The path of a KFP page,
    `#/runs/…`, stays."""
    text = _USER.sub(r"\1***@", text)
    text = _FRAGMENT.sub(r"\1#***", _QUERY.sub(r"\1?***", text))
    return _SIGNED_PATH.sub("?***", text)


def is_secret_name(name: str) -> bool:
    """Whether a key looks as if its value were a secret: `HF_TOKEN`, `awsSecretAccessKey`; not
    `row_tokens`."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return _SECRET_WORDS.search(words.lower()) is not None


def public(value: Any) -> Any:
    """The value without secrets: addresses in its texts, and values of keys with such a name."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, (list, tuple)):
        return [public(each) for each in value]
    if isinstance(value, Mapping):
        return {
            key: "***" if is_secret_name(str(key)) else public(each) for key, each in value.items()
        }
    return value


def shown(value: object, *, name: str = "") -> str:
    """A value as a message shows it: as Python writes it, cut, nothing of it where its name is that
    of a secret."""
    if is_secret_name(name):
        return "***"
    try:
        text = _Short().repr(value)
    except ValueError:  # Python refuses to write whole numbers of more than 4,300 digits
        return "a number of more than 4,000 digits"
    return printable(cut(text))


def cut(text: str, most: int = MOST_LETTERS) -> str:
    """The text, or its beginning and an ellipsis, `most` letters in all."""
    if len(text) <= most:
        return text
    return f"{text[: most - 1]}…"


def first_problems(problems: Iterable[str]) -> list[str]:
    """The first 50 problems and a line that counts the rest, of those too that an earlier cut left
    out."""
    kept, num_more = [], 0
    for problem in problems:
        earlier = _MORE.fullmatch(problem)
        if earlier is not None:
            num_more += int(earlier[1])
        elif len(kept) < MOST_PROBLEMS:
            kept.append(problem)
        else:
            num_more += 1
    if num_more:
        return [*kept, f"and {num_more} more problems"]
    return kept


class _Short(reprlib.Repr):
    """Looks at no more of a value than is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 4 * MOST_LETTERS
        self.maxlist = self.maxtuple = self.maxdict = 20

    def repr_str(self, x: str, level: int) -> str:
        return repr(x[: self.maxstring])

    def repr_dict(self, x: Any, level: int) -> str:
        public = {
            key: "***" if is_secret_name(str(key)) else value
            for key, value in list(x.items())[: self.maxdict + 1]
        }
        return super().repr_dict(public, level)


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape", "surrogatepass").decode("ascii")
