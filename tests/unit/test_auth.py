"""Who gets in, as whom, and who does not: real keys, a real JWKS server on the loopback, and attacks."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import http.server
import json
import threading
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from insforge_realtime import jwks
from insforge_realtime.auth import Authenticator, mint
from insforge_realtime.config import load
from insforge_realtime.errors import ConfigError, Unauthorized, Unavailable
from insforge_realtime.model import Identity, Role

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "a secret that is long enough for HS256"
ANON_KEY, API_KEY = "anon_kéy", "ik_admin"
NOW = 1_800_000_000.0

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
WEAK_RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=1024)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()
SIGNERS: dict[str, Any] = {"RS256": RSA_KEY, "ES256": EC_KEY, "EdDSA": ED_KEY}


class Clock:
    """A clock that only the test moves."""

    now = NOW

    def __call__(self) -> float:
        return self.now


def jwk(key: Any, kid: str | None, **extra: object) -> dict[str, object]:
    algorithm = {rsa.RSAPrivateKey: "RS256", ec.EllipticCurvePrivateKey: "ES256"}
    name = next((name for kind, name in algorithm.items() if isinstance(key, kind)), "EdDSA")
    public = jwt.get_algorithm_by_name(name).to_jwk(key.public_key(), as_dict=True)
    return {**public, **({} if kid is None else {"kid": kid}), **extra}


class JwksServer:
    """A JWKS endpoint that can fail, hang, redirect and rotate its keys, and counts its requests."""

    def __init__(self) -> None:
        self.keys: list[object] = [jwk(RSA_KEY, "RS256"), jwk(EC_KEY, "ES256"), jwk(ED_KEY, "EdDSA")]
        self.body: bytes | None = None
        self.status = 200
        self.location: str | None = None
        self.requests = 0
        self.arrived = threading.Event()
        self.open = threading.Event()
        self.open.set()
        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/jwks.json"

    def _handler(server) -> type[http.server.BaseHTTPRequestHandler]:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests += 1
                server.arrived.set()
                server.open.wait(30)
                body = json.dumps({"keys": server.keys}).encode() if server.body is None else server.body
                self.send_response(server.status)
                if server.location is not None:
                    self.send_header("Location", server.location)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                try:
                    self.wfile.write(body)
                except OSError:
                    pass  # the client gave up, as it should

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def hang(self) -> None:
        self.arrived.clear()
        self.open.clear()

    def __enter__(self) -> JwksServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.open.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[JwksServer]:
    with JwksServer() as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


def by_secret(**settings: object) -> Authenticator:
    return Authenticator(load(jwt_secret=SECRET, **settings), clock=Clock())


def by_jwks(server: JwksServer, clock: Clock, **settings: object) -> Authenticator:
    return Authenticator(load(jwks_url=server.url, **settings), clock=clock)


def token(**claims: object) -> str:
    return mint(SECRET, subject="u1", role="authenticated", ttl=60, claims=claims, clock=Clock())


def signed(algorithm: str, *, kid: str | None = "", key: Any = None, **claims: object) -> str:
    """A token as an issuer with a JWKS signs it; its kid is the algorithm's name by default."""
    headers = None if kid is None else {"kid": kid or algorithm}
    return jwt.encode({"sub": "u1", **claims}, key or SIGNERS[algorithm], algorithm, headers=headers)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def handmade(header: dict[str, object], payload: bytes, secret: bytes = SECRET.encode()) -> str:
    """A token with an honest HMAC over whatever the header and payload are."""
    signing = f"{b64(json.dumps(header).encode())}.{b64(payload)}"
    return f"{signing}.{b64(hmac.digest(secret, signing.encode(), hashlib.sha256))}"


def of_text(payload: str) -> str:
    return handmade({"alg": "HS256", "typ": "JWT"}, payload.encode())


async def refusal(authenticator: Authenticator, auth: object) -> str:
    with pytest.raises(Unauthorized) as caught:
        await authenticator.identify(auth)
    return caught.value.message


async def until_fetched(authenticator: Authenticator) -> None:
    """Wait for the fetch that runs in the background."""
    assert authenticator._jwks is not None
    if authenticator._jwks._fetch is not None:
        await asyncio.wait({authenticator._jwks._fetch})


class TestKeys:
    async def test_the_anonymous_key_makes_an_anon_without_end(self) -> None:
        identity = await by_secret(anon_key=ANON_KEY).identify({"token": ANON_KEY})
        assert identity == Identity(Role.ANON, '{"role":"anon"}', None, None)

    async def test_an_anonymous_key_may_itself_be_a_jwt(self) -> None:
        key = jwt.encode({"role": "anon"}, "of another issuer, who signs his own keys", "HS256")
        assert (await by_secret(anon_key=key).identify({"token": key})).role is Role.ANON

    async def test_the_api_key_makes_a_project_admin(self) -> None:
        identity = await by_secret(api_key=API_KEY).identify({"apiKey": API_KEY})
        assert identity == Identity(Role.PROJECT_ADMIN, '{"role":"project_admin"}', None, None)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"apiKey": ANON_KEY},
            {"apiKey": "ik_admim"},
            {"apiKey": "\ud800"},
            {"token": API_KEY},
            {"token": "\ud800"},
        ],
    )
    async def test_a_wrong_key_is_refused_even_where_anonymous_clients_are_let_in(self, wrong: object) -> None:
        authenticator = by_secret(anon_key=ANON_KEY, api_key=API_KEY, allow_anonymous=True)
        assert "not" in await refusal(authenticator, wrong)

    async def test_no_key_opens_where_none_is_configured(self) -> None:
        assert await refusal(by_secret(), {"apiKey": API_KEY})
        assert await refusal(by_secret(), {"token": ANON_KEY})

    async def test_a_token_and_an_api_key_together_are_refused(self) -> None:
        auth = {"token": token(), "apiKey": API_KEY}
        assert "not both" in await refusal(by_secret(api_key=API_KEY), auth)

    async def test_an_empty_token_beside_an_api_key_does_not_count(self) -> None:
        identity = await by_secret(api_key=API_KEY).identify({"token": "", "apiKey": API_KEY})
        assert identity.role is Role.PROJECT_ADMIN

    @pytest.mark.parametrize("before", ["Bearer ", "bearer ", "BEARER\t", " \n", "  Bearer   ", ""])
    @pytest.mark.parametrize("after", ["", " ", "\r\n"])
    async def test_what_a_credential_was_copied_with_is_not_part_of_it(self, before: str, after: str) -> None:
        authenticator = by_secret(anon_key=ANON_KEY, api_key=API_KEY)
        for credential, role in ((token(), Role.AUTHENTICATED), (ANON_KEY, Role.ANON)):
            assert (await authenticator.identify({"token": before + credential + after})).role is role
        blank = before if not before.strip() else ""
        assert (await authenticator.identify({"apiKey": blank + API_KEY + after})).role is Role.PROJECT_ADMIN

    @pytest.mark.parametrize("nothing", ["Bearer", "bearer ", " BEARER\t\n", " ", "\n"])
    async def test_a_token_with_nothing_in_it_is_refused_clearly_and_is_not_nobodys(self, nothing: str) -> None:
        said = await refusal(by_secret(allow_anonymous=True), {"token": nothing})
        assert ("blank" if not nothing.strip() else '"Bearer" alone') in said

    async def test_a_blank_api_key_is_refused_and_is_not_nobodys(self) -> None:
        assert "blank" in await refusal(by_secret(allow_anonymous=True), {"apiKey": " "})

    @pytest.mark.parametrize("wrong", ["Bearer Bearer ", "Bearer", "Basic ", "Bearer:"])
    async def test_no_other_word_before_a_token_is_taken_off(self, wrong: str) -> None:
        assert await refusal(by_secret(), {"token": wrong + token()})
        assert await refusal(by_secret(api_key=API_KEY), {"apiKey": f"Bearer {API_KEY}"})

    async def test_blanks_around_a_configured_key_are_not_part_of_it_either(self) -> None:
        authenticator = by_secret(anon_key=f"{ANON_KEY}\n", api_key=f" {API_KEY} ")
        assert (await authenticator.identify({"token": ANON_KEY})).role is Role.ANON
        assert (await authenticator.identify({"apiKey": API_KEY})).role is Role.PROJECT_ADMIN


class TestNothing:
    @pytest.mark.parametrize("nothing", [None, {}, {"token": None}, {"token": ""}, {"apiKey": None}, {"x": 1}])
    async def test_no_credential_is_anon_only_where_that_is_allowed(self, nothing: object) -> None:
        assert (await by_secret(allow_anonymous=True).identify(nothing)).role is Role.ANON
        assert "token is needed" in await refusal(by_secret(), nothing)

    @pytest.mark.parametrize(
        "wrong",
        [[], [1], "x", "", 0, 1, True, False, {"token": 0}, {"token": False}, {"token": []}, {"apiKey": {}}],
    )
    async def test_a_wrong_type_is_refused_even_where_anonymous_clients_are_let_in(self, wrong: object) -> None:
        assert "must be" in await refusal(by_secret(allow_anonymous=True), wrong)


class TestClaims:
    async def test_a_token_becomes_its_role_subject_expiry_and_all_of_its_claims(self) -> None:
        identity = await by_secret().identify({"token": token(org={"id": 7}, name="Zoë")})
        assert (identity.role, identity.subject, identity.expires_at) == (Role.AUTHENTICATED, "u1", NOW + 60)
        assert json.loads(identity.claims) == {
            "sub": "u1",
            "role": "authenticated",
            "iat": NOW,
            "exp": NOW + 60,
            "org": {"id": 7},
            "name": "Zoë",
        }

    @pytest.mark.parametrize("role", list(Role))
    async def test_each_of_the_three_roles_is_accepted(self, role: Role) -> None:
        assert (await by_secret().identify({"token": token(role=role)})).role is role

    async def test_a_token_without_a_role_is_authenticated(self) -> None:
        assert (await by_secret().identify({"token": of_text("{}")})).role is Role.AUTHENTICATED

    @pytest.mark.parametrize("role", ["postgres", "", "ANON", None, 1, ["anon"], {"anon": 1}])
    async def test_any_other_role_is_refused(self, role: object) -> None:
        assert "role" in await refusal(by_secret(allow_anonymous=True), {"token": token(role=role)})

    async def test_a_token_ends_exactly_at_its_exp(self) -> None:
        assert await by_secret().identify({"token": token(exp=NOW + 0.001)})
        assert await refusal(by_secret(), {"token": token(exp=NOW)}) == "The token has expired"

    async def test_a_token_without_exp_does_not_end(self) -> None:
        assert (await by_secret().identify({"token": of_text('{"sub":"u1"}')})).expires_at is None

    @pytest.mark.parametrize("exp", ["1", None, True, [], 253_402_300_800, 1e300, -(10**30)])
    async def test_an_exp_that_is_not_a_time_is_refused(self, exp: object) -> None:
        assert await refusal(by_secret(), {"token": token(exp=exp)}) != "The token has expired"

    async def test_nbf_may_be_five_seconds_ahead_and_no_more(self) -> None:
        assert await by_secret().identify({"token": token(nbf=NOW + 5)})
        assert "not valid yet" in await refusal(by_secret(), {"token": token(nbf=NOW + 6)})

    @pytest.mark.parametrize("iat", [NOW + 1000, "x", None])
    async def test_iat_is_not_looked_at(self, iat: object) -> None:
        assert await by_secret().identify({"token": token(iat=iat)})

    @pytest.mark.parametrize("sub", [7, None, ["u1"]])
    async def test_a_sub_that_is_not_a_string_is_refused(self, sub: object) -> None:
        assert "sub" in await refusal(by_secret(), {"token": token(sub=sub)})

    @pytest.mark.parametrize("aud", ["here", ["there", "here"]])
    async def test_a_token_for_this_audience_is_accepted(self, aud: object) -> None:
        assert await by_secret(jwt_audience="here").identify({"token": token(aud=aud)})

    @pytest.mark.parametrize("claims", [{"aud": "there"}, {"aud": ["there"]}, {"aud": None}, {"aud": {"here": 1}}, {}])
    async def test_a_token_for_another_audience_is_refused(self, claims: dict[str, object]) -> None:
        assert "audience" in await refusal(by_secret(jwt_audience="here"), {"token": token(**claims)})

    async def test_an_audience_and_an_issuer_that_nobody_asked_for_are_fine(self) -> None:
        assert await by_secret().identify({"token": of_text('{"aud":"there","iss":7}')})

    async def test_the_issuer_must_be_the_configured_one(self) -> None:
        authenticator = by_secret(jwt_issuer="us")
        assert await authenticator.identify({"token": token(iss="us")})
        for payload in ('{"iss":"them"}', '{"iss":["us"]}', "{}"):
            assert "issuer" in await refusal(authenticator, {"token": of_text(payload)})

    @pytest.mark.parametrize(
        "payload",
        [
            '{"a":"\\u0000"}',
            '{"\\u0000":1}',
            '{"a":[{"b":["x\\u0000y"]}]}',
            '{"a":NaN}',
            '{"a":[Infinity]}',
            '{"a":1e999}',
            '{"a":"\\ud800"}',
            '{"id":123456789012345678901}',
            '{"a":' + "[" * 300 + "]" * 300 + "}",
            '{"a":' + "[" * 5000 + "]" * 5000 + "}",
            "[]",
            "null",
            '"sub"',
            "",
            "{",
        ],
    )
    async def test_claims_that_postgresql_could_not_hold_are_refused(self, payload: str) -> None:
        assert await refusal(by_secret(allow_anonymous=True), {"token": of_text(payload)})

    async def test_a_backslash_that_only_looks_like_nul_is_kept(self) -> None:
        identity = await by_secret().identify({"token": token(path="C:\\u0000")})
        assert json.loads(identity.claims)["path"] == "C:\\u0000"


class TestAttacks:
    @pytest.mark.parametrize("algorithm", ["none", "None", "HS384", "HS512", "RS256", "", 7, None, ["HS256"], {}])
    async def test_an_algorithm_that_is_not_configured_is_refused(self, algorithm: object) -> None:
        for secret in (SECRET.encode(), b""):
            forged = handmade({"alg": algorithm}, b'{"role":"project_admin"}', secret)
            assert await refusal(by_secret(allow_anonymous=True), {"token": forged})
            assert await refusal(by_secret(), {"token": forged.rpartition(".")[0] + "."})

    async def test_the_public_rsa_key_is_not_an_hmac_secret(self, server: JwksServer, clock: Clock) -> None:
        pem = RSA_KEY.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        forged = handmade({"alg": "HS256", "kid": "RS256"}, b'{"role":"project_admin"}', pem)
        for authenticator in (by_jwks(server, clock), by_jwks(server, clock, jwt_secret=SECRET)):
            assert await refusal(authenticator, {"token": forged})

    async def test_rs256_in_the_header_does_not_lead_to_the_hmac_secret(self, server: JwksServer, clock: Clock) -> None:
        forged = handmade({"alg": "RS256", "kid": "RS256"}, b'{"role":"project_admin"}')
        assert "signature" in await refusal(by_jwks(server, clock, jwt_secret=SECRET), {"token": forged})

    async def test_a_kid_of_another_key_type_is_refused(self, server: JwksServer, clock: Clock) -> None:
        forged = signed("RS256", kid="ES256")
        assert "not in the JWKS" in await refusal(by_jwks(server, clock), {"token": forged})

    async def test_a_crit_header_that_nobody_understands_is_refused(self) -> None:
        forged = handmade({"alg": "HS256", "crit": ["exp"], "exp": 1}, b"{}")
        assert await refusal(by_secret(), {"token": forged})

    async def test_a_detached_payload_is_refused(self) -> None:
        forged = handmade({"alg": "HS256", "crit": ["b64"], "b64": False}, b"")
        assert await refusal(by_secret(), {"token": forged})

    async def test_a_key_that_the_token_brings_along_is_not_used(self, server: JwksServer, clock: Clock) -> None:
        mine = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        headers = {"kid": "RS256", "jwk": jwk(mine, "RS256"), "jku": "http://127.0.0.1:9/"}
        forged = jwt.encode({}, mine, "RS256", headers=headers)
        assert "signature" in await refusal(by_jwks(server, clock), {"token": forged})

    @pytest.mark.parametrize("part", [0, 1, 2])
    async def test_a_token_with_a_changed_part_is_refused(self, part: int) -> None:
        parts = token().split(".")
        parts[part] = ("A" if parts[part][0] != "A" else "B") + parts[part][1:]
        assert await refusal(by_secret(), {"token": ".".join(parts)})

    async def test_a_token_of_another_secret_is_refused(self) -> None:
        forged = mint("another secret that is long enough", subject="u1", role="anon", ttl=60, clock=Clock())
        assert "signature" in await refusal(by_secret(allow_anonymous=True), {"token": forged})

    async def test_a_token_over_16_kb_is_refused_unread(self) -> None:
        assert "too long" in await refusal(by_secret(), {"token": token(pad="x" * 13_000)})
        assert await by_secret().identify({"token": token(pad="x" * 11_000)})

    @pytest.mark.parametrize("kid", [7, None, ["a"], {"a": 1}])
    async def test_a_kid_that_is_not_a_string_is_refused(self, kid: object, server: JwksServer, clock: Clock) -> None:
        forged = handmade({"alg": "HS256", "kid": kid}, b"{}")
        assert await refusal(by_secret(), {"token": forged})
        forged = handmade({"alg": "RS256", "kid": kid}, b"{}")
        assert await refusal(by_jwks(server, clock), {"token": forged})

    async def test_neither_a_message_nor_a_log_quotes_the_token(self) -> None:
        bad = [
            "SENTINEL",
            "SENTINEL.b.c",
            handmade({"alg": "SENTINEL", "kid": "SENTINEL"}, b"SENTINEL"),
            of_text("SENTINEL"),
            handmade({"alg": "HS256", "crit": ["SENTINEL"]}, b"{}"),
        ]
        with capture_logs() as logs:
            messages = [await refusal(by_secret(), {"token": text}) for text in bad]
        assert logs
        assert "SENTINEL" not in str(messages) + str(logs)


class TestSecret:
    def test_a_public_key_is_not_a_secret(self) -> None:
        pem = RSA_KEY.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        with pytest.raises(ConfigError, match="REALTIME_JWT_SECRET"):
            Authenticator(load(jwt_secret=pem.decode()))

    def test_a_minted_token_has_what_was_asked_for_and_a_whole_exp(self) -> None:
        made = mint(
            "short",
            subject=None,
            role="anon",
            ttl=0.5,
            audience="a",
            issuer="i",
            claims={"x": 1},
            clock=Clock(),
        )
        payload = made.split(".")[1]
        assert json.loads(base64.urlsafe_b64decode(payload + "==")) == {
            "role": "anon",
            "aud": "a",
            "iss": "i",
            "iat": NOW,
            "exp": NOW + 1,
            "x": 1,
        }


class TestJwks:
    @pytest.mark.parametrize("algorithm", SIGNERS)
    async def test_each_algorithm_is_verified_by_its_key(
        self, algorithm: str, server: JwksServer, clock: Clock
    ) -> None:
        authenticator = by_jwks(server, clock)
        identity = await authenticator.identify({"token": signed(algorithm, exp=NOW + 1)})
        assert (identity.subject, identity.expires_at) == ("u1", NOW + 1)
        assert "expired" in await refusal(authenticator, {"token": signed(algorithm, exp=NOW)})
        assert server.requests == 1

    async def test_hs256_works_beside_a_jwks_without_asking_it(self, server: JwksServer, clock: Clock) -> None:
        assert await by_jwks(server, clock, jwt_secret=SECRET).identify({"token": token()})
        assert server.requests == 0

    async def test_hs256_is_refused_where_only_a_jwks_is_configured(self, server: JwksServer, clock: Clock) -> None:
        assert "RS256, ES256, EdDSA" in await refusal(by_jwks(server, clock), {"token": token()})

    async def test_a_token_without_kid_needs_exactly_one_key_of_its_algorithm(
        self, server: JwksServer, clock: Clock
    ) -> None:
        assert await by_jwks(server, clock).identify({"token": signed("RS256", kid=None)})
        server.keys.append(jwk(rsa.generate_private_key(public_exponent=65537, key_size=2048), None))
        assert "kid" in await refusal(by_jwks(server, clock), {"token": signed("RS256", kid=None)})
        assert await by_jwks(server, clock).identify({"token": signed("ES256", kid=None)})

    async def test_keys_that_do_not_verify_tokens_are_skipped(self, server: JwksServer, clock: Clock) -> None:
        oct_key = {"kty": "oct", "k": b64(SECRET.encode()), "kid": "RS256", "alg": "HS256"}
        private = jwt.get_algorithm_by_name("RS256").to_jwk(RSA_KEY, as_dict=True)
        server.keys = [
            *(None, 7, "x", [], {}, {"kty": "RSA"}, {"kty": ["RSA"]}, {"kty": "RSA", "n": 1, "e": "AQAB"}),
            *(oct_key, {**private, "kid": "RS256"}, jwk(RSA_KEY, "RS256", use="enc")),
            *(jwk(RSA_KEY, "RS256", alg="PS256"), jwk(WEAK_RSA_KEY, "RS256")),
            *(
                jwk(ec.generate_private_key(ec.SECP384R1()), "RS256"),
                jwk(ed448.Ed448PrivateKey.generate(), "RS256"),
            ),
            jwk(EC_KEY, "ES256", use="sig", alg="ES256"),
        ]
        authenticator = by_jwks(server, clock)
        assert await authenticator.identify({"token": signed("ES256")})
        assert "not in the JWKS" in await refusal(authenticator, {"token": signed("RS256")})
        forged = jwt.encode({}, SECRET, "HS256", headers={"kid": "RS256"})
        assert await refusal(authenticator, {"token": forged})

    async def test_a_rotated_key_is_found_by_its_unknown_kid(self, server: JwksServer, clock: Clock) -> None:
        authenticator = by_jwks(server, clock)
        await authenticator.identify({"token": signed("RS256")})
        server.keys = [jwk(RSA_KEY, "new")]
        clock.now += 10
        assert await authenticator.identify({"token": signed("RS256", kid="new")})
        assert "not in the JWKS" in await refusal(authenticator, {"token": signed("RS256")})

    async def test_unknown_kids_cause_one_fetch_in_ten_seconds(self, server: JwksServer, clock: Clock) -> None:
        authenticator = by_jwks(server, clock)
        for n in range(50):
            assert "not in the JWKS" in await refusal(authenticator, {"token": signed("EdDSA", kid=f"k{n}")})
        assert server.requests == 1
        clock.now += 10
        await refusal(authenticator, {"token": signed("EdDSA", kid="k")})
        assert server.requests == 2

    async def test_a_clock_set_back_does_not_stop_the_refreshing(self, server: JwksServer, clock: Clock) -> None:
        authenticator = by_jwks(server, clock)
        await authenticator.identify({"token": signed("RS256")})
        clock.now -= 100_000
        await refusal(authenticator, {"token": signed("RS256", kid="new")})
        assert server.requests == 2

    async def test_callers_at_the_same_time_share_one_fetch(self, server: JwksServer, clock: Clock) -> None:
        authenticator = by_jwks(server, clock)
        auths = [{"token": signed(name)} for name in SIGNERS for _ in range(10)]
        assert len(await asyncio.gather(*map(authenticator.identify, auths))) == 30
        assert server.requests == 1

    async def test_a_caller_that_goes_away_does_not_take_the_fetch_along(
        self, server: JwksServer, clock: Clock
    ) -> None:
        authenticator = by_jwks(server, clock)
        server.hang()
        first, second = (asyncio.create_task(authenticator.identify({"token": signed("RS256")})) for _ in range(2))
        await asyncio.to_thread(server.arrived.wait)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        server.open.set()
        assert (await second).subject == "u1"
        assert server.requests == 1

    async def test_old_keys_are_refreshed_behind_the_back_of_a_caller(self, server: JwksServer, clock: Clock) -> None:
        authenticator = by_jwks(server, clock)
        await authenticator.identify({"token": signed("RS256")})
        server.keys = [jwk(EC_KEY, "ES256")]
        clock.now += 600
        server.hang()
        assert await authenticator.identify({"token": signed("RS256")})  # although the endpoint does not answer
        server.open.set()
        await until_fetched(authenticator)
        assert "not in the JWKS" in await refusal(authenticator, {"token": signed("RS256")})
        assert server.requests == 2

    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (500, None),
            (404, b"gone"),
            (200, b""),
            (200, b"<html>"),
            (200, b"[]"),
            (200, b'{"keys":{}}'),
            (200, b'{"keys":[]}' + b" " * 1_000_000),
        ],
    )
    async def test_the_old_keys_outlive_a_broken_endpoint_and_each_failure_is_warned_of_once(
        self, status: int, body: bytes | None, server: JwksServer, clock: Clock
    ) -> None:
        authenticator = by_jwks(server, clock)
        await authenticator.identify({"token": signed("RS256")})
        server.status, server.body = status, body
        clock.now += 600
        with capture_logs() as logs:
            for _ in range(3):
                assert await authenticator.identify({"token": signed("RS256")})
                await until_fetched(authenticator)
        assert [line["log_level"] for line in logs] == ["warning"]
        with pytest.raises(Unavailable):  # perhaps a new key: nobody can tell
            await authenticator.identify({"token": signed("RS256", kid="new")})

    async def test_without_any_keys_the_answer_is_unavailable_until_the_endpoint_is_back(
        self, server: JwksServer, clock: Clock
    ) -> None:
        authenticator = by_jwks(server, clock, allow_anonymous=True)
        server.status = 503
        for _ in range(3):
            with pytest.raises(Unavailable):
                await authenticator.identify({"token": signed("RS256")})
        assert server.requests == 1
        server.status = 200
        clock.now += 10
        assert await authenticator.identify({"token": signed("RS256")})

    async def test_an_empty_jwks_takes_all_keys_back(self, server: JwksServer, clock: Clock) -> None:
        authenticator = by_jwks(server, clock)
        await authenticator.identify({"token": signed("RS256")})
        server.keys = []
        clock.now += 600
        await authenticator.identify({"token": signed("RS256")})
        await until_fetched(authenticator)
        with pytest.raises(Unavailable):
            await authenticator.identify({"token": signed("RS256")})

    async def test_an_endpoint_that_is_not_there_is_unavailable(self, clock: Clock) -> None:
        with JwksServer() as gone:
            pass
        with pytest.raises(Unavailable):
            await by_jwks(gone, clock).identify({"token": signed("RS256")})

    async def test_a_hanging_endpoint_holds_up_nobody_else(self, server: JwksServer, clock: Clock) -> None:
        authenticator = by_jwks(server, clock, jwt_secret=SECRET)
        server.hang()
        waiting = asyncio.create_task(authenticator.identify({"token": signed("RS256")}))
        await asyncio.to_thread(server.arrived.wait)
        assert await authenticator.identify({"token": token()})
        assert not waiting.done()
        server.open.set()
        assert await waiting

    async def test_a_hanging_endpoint_is_unavailable_after_the_timeout(
        self, server: JwksServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(jwks, "JWKS_TIMEOUT", 0.2)
        authenticator = by_jwks(server, clock)
        server.hang()
        with pytest.raises(Unavailable):
            await authenticator.identify({"token": signed("RS256")})
        await until_fetched(authenticator)

    async def test_a_fetch_in_flight_is_joined_however_long_it_takes(self, server: JwksServer, clock: Clock) -> None:
        authenticator = by_jwks(server, clock)
        server.hang()
        first = asyncio.create_task(authenticator.identify({"token": signed("RS256")}))
        await asyncio.to_thread(server.arrived.wait)
        clock.now += 100
        second = asyncio.create_task(authenticator.identify({"token": signed("ES256")}))
        await asyncio.sleep(0)
        server.open.set()
        assert await asyncio.gather(first, second)
        assert server.requests == 1

    async def test_an_endpoint_that_drips_is_given_up(
        self, server: JwksServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(jwks, "JWKS_TIMEOUT", -1.0)

        class Dripping:
            def read1(self, size: int) -> bytes:
                return b" "

        with pytest.raises(ValueError, match="too slow"):
            jwks._body(Dripping())

    async def test_a_redirect_is_followed_within_its_scheme_only(self, server: JwksServer, clock: Clock) -> None:
        with JwksServer() as moved:
            moved.status, moved.location = 302, server.url
            assert await by_jwks(moved, clock).identify({"token": signed("RS256")})
            for target in (server.url.replace("http:", "https:"), "ftp://127.0.0.1/", "file:///etc/hostname"):
                moved.location = target
                with capture_logs() as logs, pytest.raises(Unavailable):
                    await by_jwks(moved, clock).identify({"token": signed("RS256")})
                assert any(word in logs[0]["error"] for word in ("another scheme", "not allowed"))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
SIGNED = st.builds(
    handmade,
    st.fixed_dictionaries(
        {"alg": st.sampled_from(["HS256", "HS256", "RS256"]) | JSON_VALUES},
        optional={"kid": JSON_VALUES, "crit": JSON_VALUES},
    ),
    st.dictionaries(st.sampled_from(["exp", "nbf", "sub", "role", "aud", "iss", "x"]), JSON_VALUES).map(
        lambda claims: json.dumps(claims).encode()
    )
    | st.binary(),
)
AUTHS = JSON_VALUES | st.dictionaries(
    st.sampled_from(["token", "apiKey", "x"]),
    JSON_VALUES | SIGNED | SIGNED.map(lambda made: made[:-3] + ".e"),
)


class TestAnything:
    CONFIG = load(jwt_secret=SECRET, jwks_url="http://127.0.0.1:9/", anon_key=ANON_KEY, api_key=API_KEY)

    @settings(max_examples=300, deadline=None)
    @given(auth=AUTHS)
    def test_any_json_at_all_is_an_identity_or_a_refusal(self, auth: object) -> None:
        try:
            identity = asyncio.run(Authenticator(self.CONFIG, clock=Clock()).identify(auth))
        except (Unauthorized, Unavailable):
            return
        assert isinstance(identity, Identity)
        assert isinstance(json.loads(identity.claims), dict)
