"""Lists as the server gives them: filters, orders, and pages whose token holds where the next one
begins.

A token is what kubeflow/pipelines' list.go makes: base64 of JSON with the value of the sorted field
and the key of the next object, and the filter. A filter that came through JSON is compared with one
that did not: lists of IN are then never the same.
"""

import base64
import binascii
import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import unquote

from tests.support.kfp.answers import Refused, Tree, refuse_unknown

OPERATIONS = (
    "OPERATION_UNSPECIFIED",
    "EQUALS",
    "NOT_EQUALS",
    "GREATER_THAN",
    "",
    "GREATER_THAN_EQUALS",
    "LESS_THAN",
    "LESS_THAN_EQUALS",
)
OPERATIONS += ("IN", "IS_SUBSTRING")
"""By their numbers in filter.proto, which kfp.Client sends; 4 is not given away there."""
IN_TOKEN = {"EQUALS": "EQ", "NOT_EQUALS": "NEQ", "IN": "IN", "IS_SUBSTRING": "SUBSTRING"}
COLUMNS = {
    "created_at": "CreatedAtInSec",
    "name": "Name",
    "display_name": "DisplayName",
    "state": "State",
    "status": "State",
}
MOST = 200
DOING = "Failed to create list options: "
MISMATCH = (
    "page token does not match the supplied sort by and/or filtering criteria. Either specify the "
    "same criteria or leave the latter empty if page token is specified"
)

Filter = dict[str, dict[str, list[Any]]] | None
Place = tuple[Any, str]
"""Where an object stands in an order: the sorted field's value, and the key."""


@dataclass(frozen=True)
class Criteria:
    """What a list is asked for."""

    by: str
    is_descending: bool
    wanted: Filter
    start: Place | None = None
    """Where the page begins; None for the first."""


def page(name: str, objects: list[Tree], query: dict[str, str], keys: tuple[str, ...]) -> Tree:
    """One page of the objects under `name`. The first of `keys` is the one by which objects are
    kept apart."""
    asked = _criteria(query, keys)

    def place(tree: Tree) -> Place:
        return _place(tree, asked.by, keys[0])

    found = [each for each in objects if _passes(each, asked.wanted, keys)]
    found.sort(key=place, reverse=asked.is_descending)
    rest = [each for each in found if not _is_before(place(each), asked)]
    size = _page_size(query)
    answer: Tree = {name: rest[:size], "total_size": len(found)} if rest else {}
    if size < len(rest):
        answer["next_page_token"] = _token(place(rest[size]), asked)
    return answer


def _is_before(place: Place, asked: Criteria) -> bool:
    """Whether an earlier page had it."""
    if asked.start is None:
        return False
    return place > asked.start if asked.is_descending else place < asked.start


def _page_size(query: dict[str, str]) -> int:
    size = int(query.get("page_size", 0))
    if size < 0:
        raise Refused(3, f"The page size should be greater than 0. Got {size}", doing=DOING)
    return min(size or 20, MOST)


def _criteria(query: dict[str, str], keys: tuple[str, ...]) -> Criteria:
    by, _, order = query.get("sort_by", "").partition(" ")
    if by and (by not in keys or order not in ("", "asc", "desc")):
        raise Refused(3, f"Invalid sorting field: {by!r}; supported: {keys}", doing=DOING)
    given = Criteria(by or "created_at", order == "desc", _filter(query.get("filter", ""), keys))
    return _with_token(given, query, keys) if query.get("page_token") else given


def _with_token(given: Criteria, query: dict[str, str], keys: tuple[str, ...]) -> Criteria:
    """What the token says. What is asked beside it must be the same, which it never is for IN."""
    token = _read_token(query["page_token"])
    by, is_descending = token["SortByFieldName"], token["IsDesc"]
    is_other_order = "sort_by" in query and (
        COLUMNS.get(given.by, given.by),
        given.is_descending,
    ) != (by, is_descending)
    is_other_filter = given.wanted is not None and (
        bool(given.wanted["IN"]) or given.wanted != token["Filter"]
    )
    if is_other_order or is_other_filter:
        raise Refused(3, MISMATCH, doing=f"{DOING}Invalid input error: ")
    key = (
        next(key for key in keys if COLUMNS.get(key, key) == by)
        if by != "CreatedAtInSec"
        else "created_at"
    )
    return Criteria(
        key, is_descending, token["Filter"], (token["SortByFieldValue"], token["KeyFieldValue"])
    )


def _place(tree: Tree, by: str, key: str) -> Place:
    value = tree.get(by, "")
    if by == "created_at":
        value = int(datetime.fromisoformat(value).timestamp()) if value else 0
    return value, tree[key]


def _token(place: Place, asked: Criteria) -> str:
    column = COLUMNS.get(asked.by, asked.by)
    token = {
        "SortByFieldName": column,
        "SortBySQLColumn": column,
        "SortByFieldValue": place[0],
        "SortByFieldPrefix": "",
        "KeyFieldName": "UUID",
        "KeyFieldValue": place[1],
        "KeyFieldPrefix": "",
        "IsDesc": asked.is_descending,
        "ModelName": "",
        "Filter": asked.wanted,
    }
    return base64.b64encode(json.dumps(token, separators=(",", ":")).encode()).decode()


def _read_token(text: str) -> Tree:
    try:
        return json.loads(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        raise Refused(3, "Invalid page token", doing=f"{DOING}InvalidInputError: ") from None


def _filter(text: str, keys: tuple[str, ...]) -> Filter:
    """The predicates by operation and column, as a token keeps them."""
    if not text:
        return None
    try:
        predicates = json.loads(unquote(text)).get("predicates", [])
    except (ValueError, AttributeError):
        raise Refused(3, f"failed to parse valid filter from {text!r}", doing=DOING) from None
    found: dict[str, dict[str, list[Any]]] = {
        name: {} for name in ("EQ", "NEQ", "GT", "GTE", "LT", "LTE", "IN", "SUBSTRING")
    }
    for each in predicates:
        operation, key, value = _predicate(
            {_snake(name): value for name, value in each.items()}, keys
        )
        found[operation].setdefault(key, []).append(value)
    return found


def _predicate(predicate: Tree, keys: tuple[str, ...]) -> tuple[str, str, Any]:
    refuse_unknown("V2beta1Predicate", {**predicate, "operation": "EQUALS"})
    key, operation = str(predicate.get("key", "")), predicate.get("operation", 0)
    if key not in keys:
        raise Refused(3, f"no such field {key!r} to filter by; there are {keys}", doing=DOING)
    name = OPERATIONS[operation] if isinstance(operation, int) else str(operation)
    if name not in IN_TOKEN:
        raise Refused(12, f"the stand-in does not filter by {name}")
    value = (
        predicate.get("string_values", {}).get("values", [])
        if name == "IN"
        else predicate.get("string_value")
    )
    return IN_TOKEN[name], COLUMNS.get(key, key), value


def _passes(tree: Tree, wanted: Filter, keys: tuple[str, ...]) -> bool:
    for operation, columns in (wanted or {}).items():
        for column, values in columns.items():
            actual = _value(tree, column, keys)
            if not all(_meets(operation, actual, value) for value in values):
                return False
    return True


def _value(tree: Tree, column: str, keys: tuple[str, ...]) -> str:
    """What a column holds. MySQL compares names without case."""
    fields = {
        "Name": "name" if "name" in tree else "display_name",
        "DisplayName": "display_name",
        "State": "state",
        "id": keys[0],
    }
    value = str(tree.get(fields.get(column, column), ""))
    return value.lower() if column in ("Name", "DisplayName") else value


def _meets(operation: str, actual: str, value: Any) -> bool:
    if operation == "IN":
        return actual in value
    if operation == "SUBSTRING":
        return str(value).lower() in actual.lower()
    return (actual == value or actual == str(value).lower()) == (operation == "EQ")


def _snake(name: str) -> str:
    """`stringValue`, which protojson takes too, as `string_value`."""
    return re.sub(r"(?<=[a-z])([A-Z])", lambda found: f"_{found[1].lower()}", name)
