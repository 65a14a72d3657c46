"""OpenAI's client, pointed at Rejoin: any provider answers."""

import os

from openai import OpenAI

url = os.environ.get("REJOIN_URL", "http://127.0.0.1:8000")
client = OpenAI(base_url=f"{url}/v1", api_key=os.environ.get("REJOIN_API_KEY", "any"))
model = os.environ.get("REJOIN_MODEL", "demo/tour")
for chunk in client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi"}], stream=True):
    print(chunk.choices[0].delta.content or "", end="", flush=True)
