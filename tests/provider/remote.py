"""The same provider as a process of its own: scripts go in and records come out over HTTP.

    POST   /__script  {"model": "m", "steps": [{"step": "Text", "text": "Hi"}, {"step": "Wait", "gate": "g"}]}
                      "then": true appends
    POST   /__gate    {"name": "g"}      opens it
    GET    /__calls   {"active": 0, "max_concurrent": 1, "calls": [...]}
    DELETE /__calls   forgets them

`to_json` makes the steps.
"""

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from tests.provider import breaks, quirks, steps
from tests.provider.gate import Gate
from tests.provider.http1 import Request
from tests.provider.server import ScriptedProvider
from tests.provider.steps import Step

_WORDS: dict[str, Any] = {**vars(steps), **vars(breaks), **vars(quirks)}


def to_json(script: Sequence[Step]) -> list[dict[str, Any]]:
    """Return steps as plain JSON values for `POST /__script`; bytes as latin-1 text, gates by name."""

    def plain(value: Any) -> Any:
        if isinstance(value, bytes):
            return value.decode("latin-1")
        if isinstance(value, Gate):
            return value.name
        if isinstance(value, list | tuple):
            return [one(item) if hasattr(item, "__dataclass_fields__") else item for item in value]
        return dict(value) if hasattr(value, "keys") else value

    def one(step: Any) -> dict[str, Any]:
        return {"step": type(step).__name__, **{f.name: plain(getattr(step, f.name)) for f in fields(step)}}

    return [one(step) for step in script]


class RemoteProvider(ScriptedProvider):
    """A ScriptedProvider that also answers `/__script`, `/__gate` and `/__calls`."""

    def other(self, request: Request) -> tuple[int, dict[str, Any]]:
        try:
            match request.method, request.target:
                case "POST", "/__script":
                    order = json.loads(request.body)
                    play = self.then if order.get("then") else self.script
                    play(order["model"], *map(self._step, order["steps"]))
                    return 200, {}
                case "POST", "/__gate":
                    self.gate(json.loads(request.body)["name"]).open()
                    return 200, {}
                case "GET", "/__calls":
                    calls = [call.summary() for call in self.calls]
                    return 200, {"active": self.active, "max_concurrent": self.max_concurrent, "calls": calls}
                case "DELETE", "/__calls":
                    self.forget()
                    return 200, {}
        except (ValueError, TypeError, KeyError, AttributeError) as fault:
            return 400, {"error": repr(fault)}
        return super().other(request)

    def _step(self, order: dict[str, Any]) -> Step:
        values = {name: value for name, value in order.items() if name != "step"}
        kind = order["step"]
        if kind == "Wait":
            values["gate"] = self.gate(values["gate"])
        elif kind == "Dribble":
            values["steps"] = [self._step(step) for step in values["steps"]]
        elif kind == "CutReader":
            values["then"] = [self._step(step) for step in values["then"]]
        for name in ("data", "body"):
            if isinstance(values.get(name), str):
                values[name] = values[name].encode("latin-1")
        step: Step = _WORDS[kind](**values)
        return step
