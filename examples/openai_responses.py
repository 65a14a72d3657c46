"""OpenAI's background mode on Rejoin: the stream is dropped in the middle, and goes on where it was."""

import os
from itertools import chain, islice

from openai import OpenAI

url = os.environ.get("REJOIN_URL", "http://127.0.0.1:8000")
client = OpenAI(base_url=f"{url}/v1", api_key=os.environ.get("REJOIN_API_KEY", "any"))
model = os.environ.get("REJOIN_MODEL", "demo/tour")
with client.responses.create(model=model, input="Hi", background=True, stream=True) as stream:
    events = list(islice(stream, 6))
assert events[0].type == "response.created"
rest = client.responses.retrieve(events[0].response.id, stream=True, starting_after=events[-1].sequence_number)
for event in chain(events, rest):
    if event.type == "response.output_text.delta":
        print(event.delta, end="", flush=True)
