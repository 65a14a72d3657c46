"""OpenAI's error bodies."""

from typing import Any

from tests.provider.breaks import HttpError

_ERRORS: dict[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "Invalid request."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    403: ("invalid_request_error", "unsupported_country_region_territory", "Country or region not supported"),
    404: ("invalid_request_error", "model_not_found", "The model does not exist or you do not have access to it."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached. Please try again later."),
    503: ("server_error", None, "The engine is currently overloaded, please try again later."),
}
_SERVER_ERROR = ("server_error", None, "The server had an error while processing your request. Sorry about that!")


def http_error_object(step: HttpError) -> dict[str, Any]:
    """Return the JSON of an HTTP error; what the script does not say, as OpenAI does."""
    type_, code, message = _ERRORS.get(step.status, _SERVER_ERROR if step.status >= 500 else _ERRORS[400])
    if step.type is not None:
        type_, code = step.type, None
    return error_object(type_, step.message or message, step.code or code, step.param)


def error_object(type_: str, message: str, code: str | None, param: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": type_, "param": param, "code": code}}
