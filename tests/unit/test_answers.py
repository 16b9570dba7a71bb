"""The headers that every answer has: CORS, by the page's origin, and `nosniff`."""

from __future__ import annotations

import itertools

import httpx
import pytest
from starlette.responses import PlainTextResponse

from insforge_realtime.web.answers import Cors, NoSniff

GOOD, OTHER, EVIL = "https://app.example", "https://other.example", "https://evil.example"


async def ask(*origins: str, method: str = "GET", **headers: str) -> httpx.Headers:
    """The headers of an answer, and its status among them."""
    app = NoSniff(Cors(PlainTextResponse("x", headers={"Vary": "Accept-Encoding"}), origins))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
        answer = await client.request(
            method, "/", headers={key.replace("_", "-"): value for key, value in headers.items()}
        )
    assert answer.headers["x-content-type-options"] == "nosniff"
    return httpx.Headers({**answer.headers, "status": str(answer.status_code)})


def allowed(headers: httpx.Headers) -> tuple[str | None, str | None]:
    return headers.get("access-control-allow-origin"), headers.get("access-control-allow-credentials")


async def preflight(*origins: str, origin: str = GOOD, method: str = "POST", **more: str) -> httpx.Headers:
    return await ask(*origins, method="OPTIONS", Origin=origin, Access_Control_Request_Method=method, **more)


async def test_named_origins_are_allowed_with_credentials_and_others_not_at_all() -> None:
    for origin in (GOOD, OTHER):
        assert allowed(await ask(GOOD, OTHER, Origin=origin)) == (origin, "true")
    for origin in (EVIL, GOOD + ".evil.example", GOOD.upper(), "null", "*", f"{GOOD}, {GOOD}", ""):
        assert allowed(await ask(GOOD, OTHER, Origin=origin)) == (None, None)
        assert allowed(await preflight(GOOD, OTHER, origin=origin)) == (None, None)
    assert allowed(await ask(GOOD)) == (None, None)


async def test_where_all_are_allowed_nobodys_credentials_are() -> None:
    for origins, origin in itertools.product([("*",), ("*", GOOD)], [GOOD, EVIL, "null"]):
        assert allowed(await ask(*origins, Origin=origin)) == ("*", None)
        assert allowed(await preflight(*origins, origin=origin)) == ("*", None)


async def test_caches_learn_where_an_answer_depends_on_the_page() -> None:
    for headers in ({}, {"Origin": GOOD}, {"Origin": EVIL}):
        assert (await ask(GOOD, **headers))["vary"] == "Accept-Encoding, Origin"
        assert (await ask("*", **headers))["vary"] == "Accept-Encoding"
    asked = [f"Access-Control-Request-{what}" for what in ("Method", "Headers", "Private-Network")]
    assert (await preflight(GOOD))["vary"].split(", ") == [*asked, "Origin"]
    assert (await preflight("*"))["vary"].split(", ") == asked


async def test_a_preflight_allows_what_there_is() -> None:
    headers = await preflight(GOOD, Access_Control_Request_Headers="x-a, x-b")
    assert headers["status"] == "200"
    assert headers["access-control-allow-methods"] == "GET, HEAD, POST"
    assert headers["access-control-allow-headers"] == "x-a, x-b"
    assert int(headers["access-control-max-age"]) > 0
    assert "access-control-allow-headers" not in await preflight(GOOD)


@pytest.mark.parametrize("origins", [(GOOD,), ("*",)])
async def test_a_private_network_is_allowed_to_whom_is_allowed(origins: tuple[str, ...]) -> None:
    name, asking = "access-control-allow-private-network", {"Access_Control_Request_Private_Network": "true"}
    assert (await preflight(*origins, **asking))[name] == "true"
    assert name not in await preflight(*origins)
    assert name not in await preflight(*origins, Access_Control_Request_Private_Network="false")
    assert name not in await ask(*origins, Origin=GOOD, **asking)
    if origins == (GOOD,):
        assert name not in await preflight(*origins, origin=EVIL, **asking)


async def test_a_preflight_that_is_refused_allows_nothing() -> None:
    for headers in (await preflight(GOOD, origin=EVIL), await preflight(GOOD, method="DELETE")):
        assert headers["status"] == "400"
        assert not {"access-control-allow-methods", "access-control-allow-headers"} & set(headers)


async def test_an_options_that_is_not_a_preflight_is_the_applications() -> None:
    assert (await ask(GOOD, method="OPTIONS", Origin=GOOD))["content-length"] == "1"
    assert (await ask(GOOD, method="OPTIONS", **{"Access_Control_Request_Method": "GET"}))["content-length"] == "1"
