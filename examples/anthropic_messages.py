"""Anthropic's client, pointed at Rejoin: any provider answers."""

import os

from anthropic import Anthropic

url = os.environ.get("REJOIN_URL", "http://127.0.0.1:8000")
client = Anthropic(base_url=url, api_key=os.environ.get("REJOIN_API_KEY", "any"))
model = os.environ.get("REJOIN_MODEL", "demo/tour")
with client.messages.stream(model=model, max_tokens=1_000, messages=[{"role": "user", "content": "Hi"}]) as stream:
    for text in stream.text_stream:
        print(text, end="", flush=True)
