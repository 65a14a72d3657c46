"""Every face that is served: its routes, and the bodies that the OpenAPI document has to describe."""

from collections.abc import Sequence
from typing import Final

from fastapi import APIRouter
from pydantic import BaseModel

from api.faces import ai_sdk, anthropic_messages, openai_chat, openai_responses
from api.faces.ai_sdk_request import UIChatRequest
from api.faces.anthropic_messages_request import MessagesRequest, Prompt
from api.faces.openai_chat_request import ChatRequest
from api.faces.openai_responses_request import ResponsesRequest

ROUTERS: Final[Sequence[APIRouter]] = [
    openai_chat.router,
    openai_responses.router,
    anthropic_messages.router,
    ai_sdk.router,
]

BODIES: Final[Sequence[type[BaseModel]]] = [
    ChatRequest,
    ResponsesRequest,
    MessagesRequest,
    Prompt,
    UIChatRequest,
]
