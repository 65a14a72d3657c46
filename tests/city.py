"""What tests ask for in JSON: a city and its people."""

from typing import Any

CITY: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["city", "people"],
    "additionalProperties": False,
}
SCHEMA: dict[str, Any] = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY, "strict": True}}
OBJECT: dict[str, Any] = {"type": "json_object"}
ASKED: list[dict[str, Any]] = [{"role": "user", "content": "A city as JSON"}]
