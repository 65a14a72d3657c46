"""What a model may call, and what shape its answer is to have: one neutral form for every provider."""

import math
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from shared.messages import Strict

NAME: Final = r"^[A-Za-z0-9_-]{1,64}$"


def _portable(schema: dict[str, Any]) -> dict[str, Any]:
    """Refuse numbers that JSON readers do not agree on: beyond 64 bits, NaN and the infinities."""
    left: list[Any] = [schema]
    while left:
        match left.pop():
            case dict() as value:
                left += value.values()
            case list() as value:
                left += value
            case int() as value if not -(2**63) <= value < 2**64:
                raise ValueError("a number is too large")
            case float() as value if not math.isfinite(value):
                raise ValueError("a number is not finite")
    return schema


Schema = Annotated[dict[str, Any], AfterValidator(_portable)]


def _unwrapped(key: str, shown: Any) -> BeforeValidator:
    """Take `{"type": …, key: {…}}`, OpenAI's nesting, for what is in it; `shown` is what is taken, for documents."""

    def unwrap(value: Any) -> Any:
        if isinstance(value, dict):
            inner = value.get(key)
            outer = {name: item for name, item in value.items() if name not in ("type", key)}
            if value.get("type", "function") == "function" and isinstance(inner, dict):
                return {**outer, **inner}
            return outer if value.get("type") == "function" else value
        return value

    return BeforeValidator(unwrap, json_schema_input_type=shown)


class Function(Strict):
    """A function that the model may call. `parameters` is a JSON Schema."""

    name: Annotated[str, StringConstraints(pattern=NAME)]
    description: str | None = None
    parameters: Schema = Field(default_factory=lambda: {"type": "object", "properties": {}})
    strict: bool | None = None


class Named(Strict):
    """The one function that the model has to call."""

    name: Annotated[str, StringConstraints(pattern=NAME)]


class NestedFunction(Strict):
    """The same as OpenAI's chat has it. (For the document: it is read as a flat one.)"""

    type: Literal["function"]
    function: Function


class FlatFunction(Function):
    """The same as OpenAI's Responses have it."""

    type: Literal["function"] = "function"


class NestedName(Strict):
    type: Literal["function"]
    function: Named


class FlatName(Named):
    type: Literal["function"] = "function"


Tool = Annotated[Function, _unwrapped("function", NestedFunction | FlatFunction)]
ToolChoice = Literal["auto", "none", "required"] | Annotated[Named, _unwrapped("function", NestedName | FlatName)]


class JsonSchema(Strict):
    """The shape of an answer."""

    name: Annotated[str, StringConstraints(pattern=NAME)] = "answer"
    description: str | None = None
    schema_: Schema = Field(default_factory=dict, alias="schema")
    strict: bool | None = None


class ResponseFormat(Strict):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @property
    def is_json(self) -> bool:
        return self.type != "text"

    @property
    def schema_value(self) -> dict[str, Any] | None:
        """The schema that the answer has to fit; None for any JSON object."""
        return None if self.json_schema is None or self.type != "json_schema" else self.json_schema.schema_

    @model_validator(mode="after")
    def _has_its_schema(self) -> "ResponseFormat":
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema belongs to type json_schema")
        return self
