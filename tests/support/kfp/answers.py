"""The form of what is asked and answered: published models, refusals and their bodies."""

import re
from typing import Any

import kfp_server_api.models

Tree = dict[str, Any]
HTTP_STATUS = {3: 400, 4: 504, 5: 404, 6: 409, 7: 403, 9: 400, 12: 501, 13: 500, 14: 503, 16: 401}
"""gRPC code -> HTTP status, as grpc-gateway maps them (runtime/errors.go)."""
GRPC_CODE = {status: code for code, status in reversed(HTTP_STATUS.items())}
INTERNAL = "Internal Server Error"
"""All that a gateway's details say of a fault of the server; the sentence stands in the message
alone."""
_TIME = r"\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)"
_PRIMITIVES = {"str": str, "int": int, "bool": bool, "datetime": str}


class Refused(Exception):
    """An answer that is no: a gRPC code, the reason, and before it what the server was doing."""

    def __init__(self, code: int, reason: str, *, doing: str = "Failed to do it: ") -> None:
        super().__init__(reason)
        self.code, self.reason, self.doing = code, reason, doing


def error_body(code: int, reason: str, *, doing: str, upload: bool) -> Tree:
    """What the real server says: of the gateway, or of the upload paths, which are plain HTTP
    handlers."""
    if upload:
        return {
            "error_message": reason,
            "error_details": (
                f"{reason}\ngithub.com/kubeflow/pipelines/backend/src/apiserver/server …"
            ),
        }
    said = INTERNAL if code == 13 else reason
    detail = {"@type": "type.googleapis.com/google.rpc.Status", "code": code, "message": said}
    return {"code": code, "message": f"{doing}{reason}", "details": [detail]}


def refuse_unknown(model: str, tree: Any) -> None:
    unknown = unknown_fields(model, tree, model)
    if unknown:
        raise Refused(3, "; ".join(unknown))


def unknown_fields(model: str, tree: Any, where: str = "") -> list[str]:
    """A line for each place of a JSON tree that kfp-server-api's model of this name, such as
    `V2beta1Run`, does not have."""
    if tree is None or model == "object":
        return []
    if found := re.fullmatch(r"list\[(.*)]", model):
        if not isinstance(tree, list):
            return [f"{where}: must be a list"]
        return [
            line
            for index, each in enumerate(tree)
            for line in unknown_fields(found[1], each, f"{where}.{index}")
        ]
    if found := re.fullmatch(r"dict\(str, (.*)\)", model):
        if not isinstance(tree, dict):
            return [f"{where}: must be an object"]
        return [
            line
            for key, each in tree.items()
            for line in unknown_fields(found[1], each, f"{where}.{key}")
        ]
    if model in _PRIMITIVES:
        return _wrong_value(model, tree, where)
    return _wrong_object(model, tree, where)


def _wrong_value(model: str, value: Any, where: str) -> list[str]:
    is_time = model != "datetime" or (isinstance(value, str) and re.fullmatch(_TIME, value))
    if type(value) is _PRIMITIVES[model] and is_time:
        return []
    return [f"{where}: {value!r} is no {model}"]


def _wrong_object(model: str, tree: Any, where: str) -> list[str]:
    published = getattr(kfp_server_api.models, model)
    if not published.openapi_types:
        allowed = {value for name, value in vars(published).items() if name.isupper()}
        return [] if tree in allowed else [f"{where}: {tree!r} is none of {sorted(allowed)}"]
    if not isinstance(tree, dict):
        return [f"{where}: must be an object"]
    types = {
        published.attribute_map[attribute]: kind
        for attribute, kind in published.openapi_types.items()
    }
    lines = [f"{where}.{key}: {model} has no such field" for key in tree if key not in types]
    for key, each in tree.items():
        if key in types:
            lines += unknown_fields(types[key], each, f"{where}.{key}")
    return lines
