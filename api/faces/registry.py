"""Every face that is served: its routes, and the bodies that the OpenAPI document has to describe."""

from collections.abc import Sequence
from typing import Final

from fastapi import APIRouter
from pydantic import BaseModel

from api.faces import openai_chat
from api.faces.openai_chat_request import ChatRequest

ROUTERS: Final[Sequence[APIRouter]] = [
    openai_chat.router,
]

BODIES: Final[Sequence[type[BaseModel]]] = [
    ChatRequest,
]
