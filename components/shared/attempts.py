"""Several checks, each of which may fail -> one error with the problems of all."""

from collections.abc import Callable
from typing import TypeVar

from components.shared.errors import HaganeError

Result = TypeVar("Result")


def attempt(errors: list[HaganeError], call: Callable[[], Result]) -> Result | None:
    """What `call` returns; when it raises a HaganeError, that is added to `errors` and None
    returned."""
    try:
        return call()
    except HaganeError as error:
        errors.append(error)
        return None


def all_of(errors: list[HaganeError]) -> HaganeError:
    """One error of the first one's kind, with the problems of all, each once."""
    problems = (problem for error in errors for problem in error.problems)
    return type(errors[0])(*dict.fromkeys(problems))
