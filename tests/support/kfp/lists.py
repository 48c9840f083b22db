"""Lists as the server gives them: filters, orders, and pages whose token holds where the next one begins.

A token is what kubeflow/pipelines' list.go makes: base64 of JSON with the value of the sorted field and the key of the next object,
and the filter. A filter that came through JSON is compared with one that did not: lists of IN are then never the same.
"""

import base64
import binascii
import json
import re
from datetime import datetime
from typing import Any
from urllib.parse import unquote

from tests.support.kfp.answers import Refused, Tree, refuse_unknown

OPERATIONS = ("OPERATION_UNSPECIFIED", "EQUALS", "NOT_EQUALS", "GREATER_THAN", "", "GREATER_THAN_EQUALS", "LESS_THAN", "LESS_THAN_EQUALS")
OPERATIONS += ("IN", "IS_SUBSTRING")
"""By their numbers in filter.proto, which kfp.Client sends; 4 is not given away there."""
IN_TOKEN = {"EQUALS": "EQ", "NOT_EQUALS": "NEQ", "IN": "IN", "IS_SUBSTRING": "SUBSTRING"}
COLUMNS = {"created_at": "CreatedAtInSec", "name": "Name", "display_name": "DisplayName", "state": "State", "status": "State"}
MOST = 200
DOING = "Failed to create list options: "
MISMATCH = (
    "page token does not match the supplied sort by and/or filtering criteria. Either specify the same criteria or leave the latter "
    "empty if page token is specified"
)

Filter = dict[str, dict[str, list[Any]]] | None


def page(name: str, objects: list[Tree], query: dict[str, str], keys: tuple[str, ...]) -> Tree:
    """One page of the objects under `name`. The first of `keys` is the one by which objects are told apart."""
    by, order, wanted = _criteria(query, keys)
    start: tuple[Any, str] | None = None
    if query.get("page_token"):
        token = _read_token(query["page_token"])
        is_in = bool(wanted and wanted["IN"])
        if query.get("filter") and (is_in or wanted != token["Filter"]):
            raise Refused(3, MISMATCH, doing=f"{DOING}Invalid input error: ")
        column = COLUMNS.get(by, by)
        if query.get("sort_by") and (column, order == "desc") != (token["SortByFieldName"], token["IsDesc"]):
            raise Refused(3, MISMATCH, doing=f"{DOING}Invalid input error: ")
        by = next((key for key in keys if COLUMNS.get(key, key) == token["SortByFieldName"]), by)
        order, wanted = "desc" if token["IsDesc"] else "asc", token["Filter"]
        start = (token["SortByFieldValue"], token["KeyFieldValue"])
    found = [each for each in objects if _passes(each, wanted, keys)]
    found.sort(key=lambda each: _place(each, by, keys[0]), reverse=order == "desc")
    total = len(found)
    if start is not None:
        is_before = (lambda place: place > start) if order == "desc" else (lambda place: place < start)
        found = [each for each in found if not is_before(_place(each, by, keys[0]))]
    size = int(query.get("page_size", 0))
    if size < 0:
        raise Refused(3, f"The page size should be greater than 0. Got {size}", doing=DOING)
    size = min(size or 20, MOST)
    answer: Tree = {name: found[:size], "total_size": total} if found else {}
    if size < len(found):
        answer["next_page_token"] = _token(_place(found[size], by, keys[0]), by, order, wanted)
    return answer


def _criteria(query: dict[str, str], keys: tuple[str, ...]) -> tuple[str, str, Filter]:
    by, _, order = query.get("sort_by", "").partition(" ")
    if by and (by not in keys or order not in ("", "asc", "desc")):
        raise Refused(3, f"Invalid sorting field: {by!r}; supported: {keys}", doing=DOING)
    return by or "created_at", order or "asc", _filter(query.get("filter", ""), keys)


def _place(tree: Tree, by: str, key: str) -> tuple[Any, str]:
    value = tree.get(by, "")
    if by == "created_at":
        value = int(datetime.fromisoformat(value).timestamp()) if value else 0
    return value, tree[key]


def _token(place: tuple[Any, str], by: str, order: str, wanted: Filter) -> str:
    column = COLUMNS.get(by, by)
    token = {
        "SortByFieldName": column,
        "SortBySQLColumn": column,
        "SortByFieldValue": place[0],
        "SortByFieldPrefix": "",
        "KeyFieldName": "UUID",
        "KeyFieldValue": place[1],
        "KeyFieldPrefix": "",
        "IsDesc": order == "desc",
        "ModelName": "",
        "Filter": wanted,
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
    found: dict[str, dict[str, list[Any]]] = {name: {} for name in ("EQ", "NEQ", "GT", "GTE", "LT", "LTE", "IN", "SUBSTRING")}
    for each in predicates:
        operation, key, value = _predicate({_snake(name): value for name, value in each.items()}, keys)
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
    value = predicate.get("string_values", {}).get("values", []) if name == "IN" else predicate.get("string_value")
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
    fields = {"Name": "name" if "name" in tree else "display_name", "DisplayName": "display_name", "State": "state", "id": keys[0]}
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
