"""A pydantic model's class -> the docstring under each of its fields."""

import ast
import inspect
import textwrap


def field_docstrings(model: type) -> dict[str, str]:
    """Of the class itself, without those it inherits."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        named = isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        text = below.value if isinstance(below, ast.Expr) else None
        if named and isinstance(text, ast.Constant) and isinstance(text.value, str):
            found[field.target.id] = text.value  # pyright: ignore[reportAttributeAccessIssue] - named says it
    return found
