"""`REDIS_URL`, taken apart."""

import pytest
from redis.asyncio.connection import SSLConnection

from shared import address


def test_one_server_is_as_redis_py_reads_it() -> None:
    assert address.parse("redis://us:p%40ss@a:1/2").server == {
        "host": "a", "port": 1, "db": 2, "username": "us", "password": "p@ss",
    }  # fmt: skip
    assert address.parse("unix:///run/valkey.sock?db=3").server["path"] == "/run/valkey.sock"
    assert address.parse("redis://a").sentinels == ()


def test_sentinels_have_hosts_a_service_and_a_user_of_their_own() -> None:
    parsed = address.parse(
        "redis+sentinel://us:p%40%2Css@a:1,b,[::1]:2/my%20service/3?sentinel_username=them&sentinel_password=th%26em"
    )
    assert parsed.server == {"username": "us", "password": "p@,ss", "db": 3}
    assert parsed.service == "my service"
    assert [(where["host"], where["port"]) for where in parsed.sentinels] == [("a", 1), ("b", 26379), ("::1", 2)]
    assert {(where["username"], where["password"]) for where in parsed.sentinels} == {("them", "th&em")}


@pytest.mark.parametrize(
    "url", ["redis+sentinel://a/service", "REDIS+SENTINEL://a/service/0", "redis+sentinel://a/s?db=0"]
)
def test_sentinels_need_no_user_and_no_database(url: str) -> None:
    parsed = address.parse(url)
    assert "password" not in parsed.server
    assert not parsed.server.get("db")
    assert set(parsed.sentinels[0]) == {"host", "port"}


def test_tls_is_for_servers_and_sentinels_alike_and_names_have_to_fit() -> None:
    parsed = address.parse("rediss+sentinel://a,b/service?ssl_ca_certs=/ca.pem")
    for where in (parsed.server, *parsed.sentinels):
        assert where["connection_class"] is SSLConnection
        assert (where["ssl_ca_certs"], where["ssl_check_hostname"], where["ssl_cert_reqs"]) == (
            "/ca.pem", True, "required",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "checked"),
    [("", True), ("?ssl_check_hostname=false", False), ("?ssl_cert_reqs=none", False)],
)
def test_who_says_so_takes_any_certificate(asked: str, checked: bool) -> None:
    context = address.tls(address.parse(f"rediss://a{asked}").server)
    assert context is not None
    assert context.check_hostname is checked


@pytest.mark.parametrize(
    "url",
    [
        "", "http://a", "redis+sentinel://", "redis+sentinel:///service", "redis+sentinel://a", "redis+sentinel://a/",
        "redis+sentinel://a/service/x", "redis+sentinel://a:b/service", "redis+sentinel://a,/service", "redis://a:b",
        "redis://a:-1", "unix://", "redis+sentinel://a/service?sentinel_db=1", "rediss://a?ssl_certs=x",
    ],
)  # fmt: skip
def test_what_is_none_of_the_forms_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        address.parse(url)
