"""A field of the spec and a value -> what the spec says against it."""

from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from components.shared.printable import cut
from components.shared.spec.run_spec import RunSpec


def refusal(spec_field: str, value: Any) -> str | None:
    """Why this value is none of the field's; None where it is one."""
    try:
        _type_of(spec_field).validate_python(value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        return f"{spec_field}: {cut(reason, 200)}"
    return None


@cache
def _type_of(spec_field: str) -> TypeAdapter[Any]:
    """The field's type with its limits, as the spec itself checks it."""
    *sections, last = spec_field.split(".")
    model: type[BaseModel] = RunSpec
    for section in sections:
        model = _section(model, section)
    field = model.model_fields[last]
    if _is_model(field.annotation):
        config = None
    else:
        config = model.model_config
    limited: Any = Annotated[field.annotation, field]  # pyright: ignore[reportInvalidTypeForm]
    return TypeAdapter(limited, config=config)


def _section(model: type[BaseModel], name: str) -> type[BaseModel]:
    annotation = model.model_fields[name].annotation
    assert isinstance(annotation, type), name
    assert issubclass(annotation, BaseModel), name
    return annotation


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
