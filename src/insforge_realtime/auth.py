"""Who is this? Turns the `auth` of a Socket.IO CONNECT into an `Identity`, or refuses it.

Here live the keys and the verification of JWTs: HS256 by the configured secret; RS256, ES256, EdDSA by a JWKS (jwks.py).
What an identity *may do* is decided by the database's policies, not here; nothing
here knows connections, channels or PostgreSQL. All that comes in is hostile: whatever it is, the answer is an
`Identity`, `Unauthorized`, or `Unavailable` where the JWKS cannot be read. No message and no log has a token.
"""

from __future__ import annotations

import base64
import hmac
import math
import re
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import jwt
import orjson
import structlog
from jwt.algorithms import HMACAlgorithm

from insforge_realtime.config import SHORTEST_JWT_SECRET
from insforge_realtime.errors import ConfigError, RequestError, Unauthorized
from insforge_realtime.jwks import ALGORITHM_OF_KEY, Jwks
from insforge_realtime.model import Identity, Role

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pydantic import SecretStr

    from insforge_realtime.config import AuthSettings

log = structlog.get_logger(__name__)

MAX_TOKEN_CHARS = 16 * 1024
NBF_LEEWAY = 5
END_OF_YEAR_9999 = 253_402_300_799


_BEARER = re.compile(r"bearer(\s+|$)", re.IGNORECASE)

ANON = Identity(Role.ANON, '{"role":"anon"}')
ADMIN = Identity(Role.PROJECT_ADMIN, '{"role":"project_admin"}')


class _PreparedHmac(HMACAlgorithm):
    """HS256 with a key that `_hmac_key` has prepared: PyJWT would look anew at each token whether the secret is a PEM."""

    def prepare_key(self, key: str | bytes) -> bytes:
        assert isinstance(key, bytes)
        return key


# Signatures only: for claims PyJWT has a clock of its own, and a parser that passes what PostgreSQL refuses.
_jws = jwt.PyJWS()
_jws.unregister_algorithm("HS256")
_jws.register_algorithm("HS256", _PreparedHmac(HMACAlgorithm.SHA256))


class Authenticator:
    """Tells who a client is, by what the configuration trusts; ConfigError for an unusable secret."""

    def __init__(self, config: AuthSettings, *, clock: Callable[[], float] = time.time) -> None:
        self._config, self._clock = config, clock
        self._secret = config.jwt_secret and _hmac_key(config.jwt_secret.get_secret_value())
        self._jwks = Jwks(config.jwks_url, clock) if config.jwks_url else None

    async def identify(self, auth: object) -> Identity:
        """The identity that `auth`, the JSON of a CONNECT packet, proves; or Unauthorized, Unavailable."""
        token, api_key = _credentials(auth)
        if token:
            return ANON if _same(token, self._config.anon_key) else await self._verified(token)
        if api_key:
            if _same(api_key, self._config.api_key):
                return ADMIN
            raise Unauthorized("The apiKey is not valid here; check the project's key")
        if self._config.allow_anonymous:
            return ANON
        raise Unauthorized('A token is needed: connect with auth {"token": "…"}')

    async def _verified(self, token: str) -> Identity:
        """The identity of a JWT. It waits only where the JWKS must be fetched, never for HS256."""
        if len(token) > MAX_TOKEN_CHARS:
            raise Unauthorized("The token is too long: 16 KB at most")
        try:
            algorithm, kid = _header(token)
            key = await self._key(algorithm, kid)
            claims = orjson.loads(_jws.decode(token, key, algorithms=[algorithm]))
            with _naming(claims):
                return self._identity(claims)
        except RequestError:
            raise
        except jwt.InvalidSignatureError:
            raise Unauthorized("The token's signature is wrong: it is signed with another key") from None
        except Exception as error:
            # Only the name: the messages of the libraries quote the token.
            log.debug("token refused", error=type(error).__name__)
            raise Unauthorized("The token is not a valid JWT, and not a known key") from None

    async def _key(self, algorithm: str, kid: str | None) -> bytes | jwt.PyJWK:
        if algorithm == "HS256" and self._secret:
            return self._secret
        if algorithm in ALGORITHM_OF_KEY.values() and self._jwks:
            return await self._jwks.key(algorithm, kid)
        accepted = ["HS256"] * bool(self._secret) + [*ALGORITHM_OF_KEY.values()] * bool(self._jwks)
        raise Unauthorized(f"The token's algorithm is not among: {', '.join(accepted) or 'none, send a key'}")

    def _identity(self, claims: dict[str, Any]) -> Identity:
        """The identity that verified claims stand for."""
        role = _role(claims)
        claims["role"] = role.value  # a policy that reads the claim must see the role it is judged as
        text = orjson.dumps(claims).decode()  # first: it refuses what is nested too deep to look through
        _refuse_unstorable(claims)
        expires_at, not_before = _instant(claims, "exp"), _instant(claims, "nbf")
        if expires_at is not None and expires_at <= self._clock():
            raise Unauthorized("The token has expired")
        if not_before is not None and not_before > self._clock() + NBF_LEEWAY:
            raise Unauthorized("The token is not valid yet (nbf); check the issuer's clock")
        self._check_addressee(claims)
        if not isinstance(claims.get("sub", ""), str):
            raise Unauthorized("The token's sub must be a string")
        return Identity(role, text, claims.get("sub"), expires_at)

    def _check_addressee(self, claims: dict[str, Any]) -> None:
        aud, audience, issuer = claims.get("aud"), self._config.jwt_audience, self._config.jwt_issuer
        if audience is not None and audience not in (aud if isinstance(aud, list) else [aud]):
            raise Unauthorized("The token is meant for another audience (aud)")
        if issuer is not None and claims.get("iss") != issuer:
            raise Unauthorized("The token is from another issuer (iss)")


@contextmanager
def _naming(claims: dict[str, Any]) -> Iterator[None]:
    """Let the log say whose token was refused, once its signature has shown that it is theirs."""
    try:
        yield
    except RequestError as error:
        if isinstance(subject := claims.get("sub"), str):
            error.known["sub"] = subject
        raise


def mint(
    secret: str,
    *,
    subject: str | None,
    role: str,
    ttl: float,
    audience: str | None = None,
    issuer: str | None = None,
    claims: Mapping[str, object] | None = None,
    clock: Callable[[], float] = time.time,
) -> str:
    """An HS256 token that is valid for `ttl` seconds, rounded up; `claims` override all the others."""
    times = {"iat": int(clock()), "exp": math.ceil(clock() + ttl)}
    named = {"sub": subject, "role": role, "aud": audience, "iss": issuer}
    payload = {name: value for name, value in named.items() if value is not None}
    return jwt.encode(payload | times | dict(claims or {}), _hmac_key(secret), algorithm="HS256")


def _credentials(auth: object) -> tuple[str | None, str | None]:
    """The token and the apiKey in `auth`: at most one, for which of two counts would be a guess."""
    if auth is not None and not isinstance(auth, dict):
        raise Unauthorized('auth must be an object, {"token": "…"} or {"apiKey": "…"}')
    given = {name: auth[name] for name in ("token", "apiKey") if auth and auth.get(name) not in (None, "")}
    if not all(isinstance(value, str) for value in given.values()):
        raise Unauthorized("token and apiKey must be strings")
    if len(given) > 1:
        raise Unauthorized("Send either a token or an apiKey, not both")
    bare = {name: _bare(name, value) for name, value in given.items()}
    return bare.get("token"), bare.get("apiKey")


def _bare(name: str, value: str) -> str:
    """A credential without what it was copied with: blanks around it, and before a token the scheme of an HTTP header.

    What is left is never empty: that would be no credential, and let its sender in as nobody.
    """
    bare = value.strip()
    if name == "token" and (scheme := _BEARER.match(bare)):
        bare = bare[scheme.end() :]
        if not bare:
            raise Unauthorized('The token is the word "Bearer" alone: send the token itself, with or without it')
    if not bare:
        raise Unauthorized(f"The {name} is blank: leave it out, or send one")
    return bare


def _same(given: str, key: SecretStr | None) -> bool:
    """Whether they are equal, in a time that does not tell how nearly. JSON can spell what is not Unicode."""
    expected = b"" if key is None else key.get_secret_value().strip().encode(errors="surrogatepass")
    return key is not None and hmac.compare_digest(given.encode(errors="surrogatepass"), expected)


def _hmac_key(secret: str) -> bytes:
    """The secret as a key, padded with zeros as HMAC does itself, lest PyJWT warn of short ones."""
    try:
        key: bytes = jwt.get_algorithm_by_name("HS256").prepare_key(secret)
    except jwt.InvalidKeyError as error:
        raise ConfigError(f"REALTIME_JWT_SECRET: {error}") from None
    return key.ljust(SHORTEST_JWT_SECRET, b"\0")


def _header(token: str) -> tuple[str, str | None]:
    """What the token says of its key: a hint, which PyJWT holds against the key that it leads to."""
    header = orjson.loads(base64.urlsafe_b64decode(token.partition(".")[0] + "=="))
    return header["alg"], header.get("kid")


def _refuse_unstorable(value: object) -> None:
    """No NUL: jsonb has none. No integer over 64 bits: orjson rounds it, and two ids could become one."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for item in value:
            _refuse_unstorable(item)
    elif (isinstance(value, str) and "\0" in value) or (isinstance(value, float) and abs(value) >= 2**63):
        raise Unauthorized("The token's claims contain a NUL character or a number that is too large")


def _instant(claims: dict[str, Any], name: str) -> float | None:
    """A claim that is a point in time, where there is one."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or value > END_OF_YEAR_9999:
        raise Unauthorized(f"The token's {name} must be a time, in seconds since 1970")
    return float(value)


def _role(claims: dict[str, Any]) -> Role:
    try:
        return Role(claims.get("role", Role.AUTHENTICATED))
    except ValueError:
        raise Unauthorized(f"The token's role must be one of: {', '.join(Role)}") from None
