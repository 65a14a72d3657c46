"""Keys of every shape: one is a key, and everything else is the same 401."""

import hmac
import json
from collections.abc import Iterator
from typing import Any

import pytest

from shared.keyring import KEY_PREFIX, new_key
from shared.settings import hash_key, key_id
from tests import keys
from tests.abuse.wire import Headers, ask, send
from tests.client import Client, body
from tests.stack import Stack


@pytest.fixture
async def guarded(bare: Stack) -> Stack:
    """API alone: nobody gets as far as a worker."""
    bare.configure(auth="required", secret=keys.SECRET, api_keys="carol:key-of-carol")
    await bare.api()
    return bare


def auth(*values: bytes | str) -> Headers:
    return [(b"Authorization", value.encode() if isinstance(value, str) else value) for value in values]


def shapes(key: str) -> Iterator[Headers]:
    """Yield what is not the key, but was made from it, or looks like one."""
    yield []
    yield auth("")
    for scheme in ("Bearer", "Bearer ", "bearer", "Bearer\t", "Basic", "Digest", "Token", "ApiKey", "Bearer,", "null"):
        yield auth(scheme)
    for scheme in (
        "Basic",
        "Token",
        "Bearer:",
        "Bearer=",
        "BearerX",
        "Bear er",
        "Bearer\t",
        "Bearer\xa0",
        "\xa0Bearer",
    ):
        yield auth(f"{scheme} {key}".encode("latin-1"))
    for joined in (f"Bearer\t{key}", f"Bearer{key}", f"Bearer,{key}", f'Bearer "{key}"', f"Bearer <{key}>", key):
        yield auth(joined)
    for wrong in (
        f"Bearer {key}", f"{key} {key}", f"{key},{key}", f"{key}, Bearer {key}", f"{key};", f"x{key}", f"{key}x",
        key[:-1], key[1:], key[::-1], key.upper(), key.lower(), key.replace("_", "-"), f"owner:{key}", f"alice:{key}",
        f"{key}\xa0x", f"x\x85{key}",
    ):  # fmt: skip
        yield auth(f"Bearer {wrong}".encode("latin-1"))
    for byte in (b"\xa0", b"\x85"):
        # Blanks to Python, in latin-1, and to no grammar of HTTP's.
        yield auth(b"Bearer " + byte + key.encode())
        yield auth(b"Bearer " + key.encode() + byte)
    for name in ("", "*", "?", "[a-z]*", "\\*", "../", "%00", "$(id)", "' or '1'='1", "{}", "null", "undefined", "0"):
        yield auth(f"Bearer {name}")
        yield auth(f"Bearer {KEY_PREFIX}{name}".encode())
    pattern = KEY_PREFIX + "*" * 43
    yield auth(f"Bearer {pattern}")
    yield auth(f"Bearer {KEY_PREFIX}{'?' * 43}")
    yield auth(f"Bearer {new_key()}")
    for name in (key_id(hash_key(key)), hash_key(key).hex(), f"{KEY_PREFIX}{hash_key(key).hex()[:43]}"):
        # What Redis and the ledger show of it opens nothing.
        yield auth(f"Bearer {name}")
    for wide in ("schlüssel", "ключ", "🔑", key.replace("e", "е"), key.replace("_", "＿"), "\ud83d"):
        yield auth(b"Bearer " + wide.encode("utf-8", "surrogatepass"))
    yield auth(b"Bearer \xff\xfe\x80")
    yield auth(f"Bearer {'x' * 8_000}")
    yield auth(f"Bearer {key}{'x' * 8_000}")
    yield auth(f"Bearer {' ' * 8_000}x")
    for second in (f"Bearer {key}", "Bearer x", "", "Basic eDp4"):
        yield auth(f"Bearer {key}", second)
        yield auth(second, f"Bearer {key}")
    for header in (b"X-API-Key", b"Api-Key", b"Cookie", b"Proxy-Authorization", b"X-Authorization", b"Authorisation"):
        yield [(header, b"Bearer " + key.encode())]


async def test_whatever_is_not_a_key_is_the_same_401(guarded: Stack, alice: Client) -> None:
    """CWE-287, CWE-20, CWE-208: never a 500, and nothing of what was sent comes back."""
    key = alice.http.headers["authorization"].partition(" ")[2]
    job = json.dumps(body()).encode()
    first = await ask(guarded.url, b"GET", b"/v1/jobs", [])
    for headers in shapes(key):
        for method, content in ((b"GET", b""), (b"POST", job)):
            answer = await ask(guarded.url, method, b"/v1/jobs", headers, content)
            assert answer.shown == first.shown, headers
    assert (first.status, json.loads(first.body)["code"]) == (401, "unauthorized")
    assert first.headers["www-authenticate"] == "Bearer"
    assert first.headers["content-type"] == "application/problem+json"
    assert (await alice.http.get("/v1/jobs")).status_code == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR", "Bearer "])
async def test_the_scheme_is_read_as_rfc_9110_says(guarded: Stack, alice: Client, scheme: str) -> None:
    """In any case, and with one blank or several behind it."""
    key = alice.http.headers["authorization"].partition(" ")[2]
    response = await guarded.client().http.get("/v1/jobs", headers={"Authorization": f"{scheme} {key}"})
    assert response.status_code == 200


async def test_a_bare_key_is_one_for_anthropics_clients_alone(guarded: Stack, alice: Client) -> None:
    """CWE-287: in `x-api-key`, once, in every byte, where no `Authorization` says something else."""
    key = alice.http.headers["authorization"].partition(" ")[2].encode()
    content = json.dumps({"model": "openai/m", "messages": body()["messages"]}).encode()

    async def status(path: bytes, *headers: tuple[bytes, bytes]) -> int:
        return (await ask(guarded.url, b"POST", path, list(headers), content)).status

    tokens = b"/v1/messages/count_tokens"
    right = (b"x-api-key", key)
    assert await status(tokens, right) == 200
    for wrong in (
        b"", b"*", b"Bearer " + key, key + b"x", key[:-1], b"\xa0" + key, key + b"\x85", b'"' + key + b'"',
        key.upper(), key + b"," + key, b"\xff", b"x" * 8_000, key_id(hash_key(key.decode())).encode(),
    ):  # fmt: skip
        assert await status(tokens, (b"x-api-key", wrong)) == 401, wrong
    assert await status(tokens, right, right) == 401
    for other in (b"", b"Bearer", b"Bearer x", b"Basic eDp4"):
        assert await status(tokens, right, (b"Authorization", other)) == 401, other
    for path in (b"/v1/jobs", b"/v1/chat/completions", b"//v1/messages", b"/v1/jobs?/v1/messages"):
        assert await status(path, right) in (401, 404), path


@pytest.mark.parametrize(
    "name", ["key", "api_key", "access_token", "token", "authorization", "Authorization", "ticket"]
)
async def test_a_key_in_a_url_opens_nothing(guarded: Stack, alice: Client, name: str) -> None:
    """CWE-598: also where a ticket would do."""
    key = alice.http.headers["authorization"].partition(" ")[2]
    for value in (key, f"Bearer {key}"):
        for path in ("/v1/jobs", f"/v1/jobs/job_{'0' * 32}/events"):
            response = await guarded.client().http.get(path, params={name: value})
            assert response.status_code == 401
            assert key not in response.text
    host = guarded.url.removeprefix("http://")
    assert (await guarded.client().http.get(f"http://{key}:x@{host}/v1/jobs")).status_code == 401
    assert (await guarded.client().http.get(f"http://x:{key}@{host}/v1/jobs")).status_code == 401


RAW: dict[str, bytes] = {
    "NUL": b"Authorization: Bearer \x00%b",
    "NUL behind": b"Authorization: Bearer %b\x00",
    "a bare CR": b"Authorization: Bearer %b\rX-A: b",
    "a bare LF": b"Authorization: Bearer x\nX-A: %b",
    "folded": b"Authorization: Bearer\r\n %b",
    "folded in the key": b"Authorization: Bearer %b\r\n x",
    "a blank before the colon": b"Authorization : Bearer %b",
    "an escape": b"Authorization: Bearer %b\x1b[0m",
    "DEL": b"Authorization: Bearer %b\x7f",
    "a megabyte": b"Authorization: Bearer %b" + b"x" * 1_000_000,
    "a megabyte of blanks": b"Authorization: Bearer" + b" " * 1_000_000 + b"%b x",
    "ten thousand of them": b"Authorization: Bearer %b\r\n" * 10_000 + b"X-A: b",
}


@pytest.mark.parametrize("header", RAW.values(), ids=RAW.keys())
async def test_a_header_that_is_none_opens_nothing(guarded: Stack, alice: Client, header: bytes) -> None:
    """CWE-20, CWE-444, CWE-770: 401 by us or 400 by the server, or the connection is cut; the next one is served."""
    key = alice.http.headers["authorization"].partition(" ")[2].encode()
    head = b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    answer = await send(guarded.url, head + header.replace(b"%b", key) + b"\r\n\r\n")
    assert answer.status in (401, 400, 431, 0), answer
    assert key not in answer.body
    assert (await alice.http.get("/v1/jobs")).status_code == 200


async def test_a_revoked_key_is_a_key_that_never_was(guarded: Stack) -> None:
    """CWE-204: who tries keys does not learn that one was valid."""
    key = await keys.new_key(guarded, "alice")
    client = guarded.client(key)
    assert (await client.http.get("/v1/jobs")).status_code == 200
    await keys.command(guarded, "revoke", key_id(hash_key(key)))
    revoked, unknown = [await guarded.client(shown).http.get("/v1/jobs") for shown in (key, new_key())]
    assert revoked.status_code == unknown.status_code == 401
    assert revoked.content == unknown.content
    assert sorted(revoked.headers) == sorted(unknown.headers)


class Watched(str):
    """A key that tells what was done with its characters."""

    __slots__ = ("_seen",)

    def watch(self, seen: list[Any]) -> "Watched":
        self._seen = seen
        return self

    def startswith(self, *args: Any) -> bool:
        self._seen.append(("startswith", *args))
        return super().startswith(*args)

    def __eq__(self, other: object) -> bool:
        self._seen.append(("==", other))
        return super().__eq__(other)

    def __hash__(self) -> int:
        self._seen.append("hash")
        return super().__hash__()

    def __getitem__(self, part: Any) -> str:
        self._seen.append(("[]", part))
        return super().__getitem__(part)

    def __contains__(self, part: Any) -> bool:
        self._seen.append(("in", part))
        return super().__contains__(part)


@pytest.mark.parametrize("right", ["made", "settled"])
async def test_no_step_depends_on_how_much_of_a_key_is_right(
    guarded: Stack, monkeypatch: pytest.MonkeyPatch, right: str
) -> None:
    """CWE-208: what is compared, in constant time, and what is looked up are hashes of all of it."""
    key = await keys.new_key(guarded, "alice") if right == "made" else "key-of-carol"
    known = guarded.apis[0].app.state.rejoin.known_keys
    compared: list[tuple[bytes, bytes]] = []

    def compare(first: bytes, second: bytes) -> bool:
        compared.append((first, second))
        return first == second

    monkeypatch.setattr(hmac, "compare_digest", compare)
    looked: list[str] = []
    get = known._keyring.get

    async def counted(id: str) -> Any:
        looked.append(id)
        return await get(id)

    monkeypatch.setattr(known._keyring, "get", counted)
    assert await known.holder(key) is not None
    assert compared == [(hash_key(key), hash_key(key))]
    histories = []
    for length in range(len(KEY_PREFIX) if right == "made" else 0, len(key)):
        # The same beginning, and then another character.
        wrong = key[:length] + ("A" if key[length] != "A" else "B") + key[length + 1 :]
        seen: list[Any] = []
        looked.clear()
        assert await known.holder(Watched(wrong).watch(seen)) is None
        assert looked in ([], [key_id(hash_key(wrong))])
        histories.append((seen, len(looked)))
    assert len(compared) == 1, "a hash that nobody has is compared with none"
    assert all(history == histories[0] for history in histories)
    assert all(step == ("startswith", KEY_PREFIX) for seen, _ in histories for step in seen)


async def test_of_the_keys_that_were_tried_nothing_is_kept(guarded: Stack, alice: Client) -> None:
    """CWE-256, CWE-312, CWE-400: right ones are in Redis and in memory as hashes, wrong ones nowhere at all."""
    right = [alice.http.headers["authorization"].partition(" ")[2], "key-of-carol"]
    wrong = [new_key() for _ in range(200)]
    for key in (*right, *wrong):
        await alice.http.get("/v1/jobs", headers={"Authorization": f"Bearer {key}"})
    known = guarded.apis[0].app.state.rejoin.known_keys
    assert len(known._known) == 1
    memory = repr([vars(known)[name] for name in ("_known", "_settled")])
    kept = b""
    for name in await guarded.redis.keys("*"):
        # (What has expired since the list was made is not kept.)
        kept += name + (await guarded.redis.dump(name) or b"")
        if await guarded.redis.type(name) == b"hash":
            kept += repr(await guarded.redis.hgetall(name)).encode()  # type: ignore[misc]
    for key in (*right, *wrong):
        assert key not in memory
        assert key.encode() not in kept
        assert key[len(KEY_PREFIX) :].encode() not in kept
    assert hash_key(right[0]).hex().encode() in kept
    assert all(key_id(hash_key(key)).encode() not in kept for key in wrong)
