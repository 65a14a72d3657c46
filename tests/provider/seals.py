"""What only the provider itself can have issued: signatures of thinking, and thinking under seal.

Stateless: any instance knows what another has issued. Bound to the model, as the real ones are: another model's
thinking, or a text that was edited, is refused.
"""

import base64
import hashlib
import hmac

_KEY = b"the scripted provider"


def signature(model: str, thinking: str) -> str:
    """Return what vouches for thinking that is shown."""
    return base64.b64encode(_mac(model, thinking)).decode()


def is_signature(value: object, model: str, thinking: object) -> bool:
    return isinstance(value, str) and isinstance(thinking, str) and value == signature(model, thinking)


def sealed(model: str, hidden: str) -> str:
    """Return thinking that is not shown."""
    return base64.b64encode(_mac(model, hidden) + hidden.encode("utf-8", "surrogatepass")).decode()


def is_sealed(value: object, model: str) -> bool:
    try:
        raw = base64.b64decode(str(value), validate=True)
        return hmac.compare_digest(raw[:32], _mac(model, raw[32:].decode("utf-8", "surrogatepass")))
    except ValueError:
        return False


def _mac(model: str, text: str) -> bytes:
    return hmac.digest(_KEY, f"{model}\0{text}".encode("utf-8", "surrogatepass"), hashlib.sha256)
