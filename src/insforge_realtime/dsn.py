"""Connection URLs of PostgreSQL, as providers print them: what each part means here, and what is wrong with one.

What lives here: reading a URL. What does not: the parameters, and where libpq looks for what the URL leaves out (libpq.py);
connecting (pg/dial.py). This is below config/: mistakes are found when settings are read.

Every parameter has one of five fates:

    it is meant for us or the driver      done
    it asks for what is so anyway         done, without a word (`gssencmode=prefer`)
    another driver's, or unknown          ignored, with a note that names it (`pgbouncer`, `connection_limit`, `supa`)
    a typo of one that is known           an error (`sslmod`)
    about security, and not to be had     an error (`require_auth`, an unknown `ssl…`): never weaker than what was asked for.
                                          Only channel_binding=require is let pass, with a note: Neon prints it in every URL

No error or note quotes a value: where a URL is malformed, any part of it may be the password.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from insforge_realtime import libpq
from insforge_realtime.errors import ConfigError

PASSWORDS = ("password", "sslpassword")
SCHEMES = ("postgresql://", "postgres://")
NOT_BOUND = (
    "channel_binding=require is not enforced, because the driver cannot; "
    "sslmode=verify-full (with sslrootcert=system, say) keeps others from posing as the server"
)

_NAME = re.compile(r"[A-Za-z_][\w.-]{0,40}", re.ASCII)
_HOST = re.compile(r"(?P<name>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>[^:]*))?")
_ESCAPE = "in a password, write / ? # @ : as %2F %3F %23 %40 %3A"


@dataclass(frozen=True, slots=True)
class Host:
    """One server: `name` is a host's name or address, or the folder of a socket."""

    name: str
    port: int

    @property
    def place(self) -> str:
        """For people."""
        return f"[{self.name}]:{self.port}" if ":" in self.name and not self.is_socket else f"{self.name}:{self.port}"

    @property
    def is_socket(self) -> bool:
        return self.name.startswith("/")


@dataclass(frozen=True, slots=True)
class Dsn:
    """What is in a URL.

    Args:
        hosts: in the order in which to try them; none means the socket of this machine, wherever the driver finds it.
        user, password, database, passfile: None leaves them to the driver's variables and files.
        target: which kind of server will do, one of `libpq.TARGETS`.
        spread: try the hosts in any order.
        connect_timeout: seconds for each host; None for ours.
        application: goes before the name of each connection.
        settings: of PostgreSQL, for each session.
        startup: the rest of `options`, which some poolers find their way by.
        sslmode: one of `libpq.SSL_MODES`, or `no-verify`; None for the driver's own.
        driver: further parameters as the driver understands them, mostly of TLS.
        keepalive: of the numbers that begin with keepalives, and tcp_user_timeout, those that are given.
        notes: what is not done, a line each, for the log.
    """

    hosts: tuple[Host, ...] = ()
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    database: str | None = None
    passfile: str | None = None
    target: str = "any"
    spread: bool = False
    connect_timeout: float | None = None
    application: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    startup: str | None = None
    sslmode: str | None = None
    driver: Mapping[str, str] = field(default_factory=dict, repr=False)
    keepalive: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """For people: where the database is, and its name."""
        hosts = ",".join(host.place for host in self.hosts) or "this machine"
        return f"{hosts}/{self.database or ''}"


def parse(url: str) -> Dsn:
    """Read a URL.

    Raises:
        ConfigError: it has a mistake, which is named in one line without quoting it.
    """
    given, authority = _parts(url.strip())
    given = {**libpq.service(given), **given}
    if "host" not in given and "hostaddr" in given:
        given["host"] = given.pop("hostaddr")
    notes = list(libpq.strangers(given))
    libpq.check_values(given)
    hosts = _hosts(libpq.found(given, "host"), libpq.found(given, "port"), authority)
    settings, startup = _options(given.get("options", ""))
    if "search_path" in given:
        settings["search_path"] = given["search_path"]
    if given.get("channel_binding") == "require":
        notes.append(NOT_BOUND)
    sslmode, rootcert = _tls(given, hosts)
    driver = {name: given[name] for name in libpq.DRIVERS if name in given}
    return Dsn(
        hosts=hosts,
        user=given.get("user"),
        password=given.get("password"),
        database=given.get("dbname"),
        passfile=given.get("passfile"),
        target=libpq.found(given, "target_session_attrs") or ("read-write" if len(hosts) > 1 else "any"),
        spread=given.get("load_balance_hosts") == "random",
        connect_timeout=_connect_timeout(libpq.found(given, "connect_timeout")),
        application=given.get("application_name"),
        settings=settings,
        startup=startup,
        sslmode=sslmode,
        driver=driver if rootcert is None else {**driver, "sslrootcert": rootcert},
        keepalive={name: int(given[name]) for name in libpq.KEEPALIVES if name in given},
        notes=tuple(notes),
    )


def discreet(url: str) -> str:
    """A URL without the passwords in it: to be shown.

    Raises:
        ConfigError: it cannot be read.
    """
    parse(url)
    scheme, _, rest = url.strip().partition("://")
    login, rest = _login(rest)
    place, _, query = rest.partition("?")
    kept = [item for item in query.split("&") if item and _decode(item.partition("=")[0]) not in PASSWORDS]
    user = "" if login is None else login.partition(":")[0] + "@"
    return f"{scheme}://{user}{place}{'?' if kept else ''}{'&'.join(kept)}"


def without_passwords(text: str, *urls: str | None) -> str:
    """Return a text, such as a driver's error, without the passwords of these URLs, which may be malformed."""
    found = {password for url in urls for password in _passwords((url or "").partition("://")[2])}
    for password in sorted(found, key=len, reverse=True):
        text = text.replace(password, "…")
    return text


def _passwords(rest: str) -> Iterator[str]:
    """As they are written, and decoded."""
    logins = rest.rpartition("@")[0], _login(rest)[0] or ""
    parameters = re.findall(r"[?&]([^=&]*)=([^&]*)", rest)
    written = [login.partition(":")[2] for login in logins]
    written += [value for name, value in parameters if unquote(name) in PASSWORDS]
    for password in filter(None, written):
        yield from (password, unquote(password))


def without_login(url: str) -> str:
    """Return a URL of any scheme without its user and password: to be shown."""
    return re.sub(r"//[^/?#]*@", "//…@", url)


# ---- taking it apart ---------------------------------------------------------------------------------------


def _parts(url: str) -> tuple[dict[str, str], bool]:
    """Return everything in the URL by libpq's names; and whether there was anything between // and the next slash.

    A password may have any character but a slash in it, also those that should be percent-encoded: user and password end at
    the last @ before the host does.
    """
    scheme = next((scheme for scheme in SCHEMES if url.lower().startswith(scheme)), None)
    if scheme is None:
        raise ConfigError("must be a URL that starts with postgresql://")
    rest = url[len(scheme) :]
    login, rest = _login(rest)
    end = re.search(r"[/?]", rest)
    authority, rest = (rest, "") if end is None else (rest[: end.start()], rest[end.start() :])
    path, _, query = rest.partition("?")
    user, _, password = (login or "").partition(":")
    ports, names = _authority(authority)
    found = {"user": user, "password": password, "host": names, "port": ports, "dbname": path.removeprefix("/")}
    decoded = {name: _decode(text) for name, text in found.items() if text}
    return {**decoded, **_query(query)}, bool(login or authority)


def _login(rest: str) -> tuple[str | None, str]:
    first = rest.partition("/")[0].find("@")
    if first < 0:
        return None, rest
    end = re.search(r"[/?]", rest[first:])
    last = rest.rfind("@", 0, first + end.start() if end else len(rest))
    return rest[:last], rest[last + 1 :]


def _authority(text: str) -> tuple[str, str]:
    """Return ports and hosts, both comma-separated."""
    pairs = []
    for item in text.split(",") if text else ():
        match = _HOST.fullmatch(item)
        if match is None:
            raise ConfigError(f"the host cannot be read (an IPv6 address goes into brackets; {_ESCAPE})")
        _port(_decode(match["port"] or ""))  # now: if it is not a port, what follows may be a part of the password
        pairs.append((match["port"] or "", match["name"].removeprefix("[").removesuffix("]")))
    if not any(port for port, _ in pairs):
        return "", ",".join(name for _, name in pairs)
    return ",".join(port for port, _ in pairs), ",".join(name for _, name in pairs)


def _query(text: str) -> dict[str, str]:
    found = {}
    for item in filter(None, text.split("&")):
        name, equals, value = item.partition("=")
        name = _decode(name)
        if not _NAME.fullmatch(name):
            raise ConfigError(f"what follows the question mark must be parameters like sslmode=require ({_ESCAPE})")
        if not equals:
            raise ConfigError(f"the parameter {name} has no value: write {name}=…")
        found[libpq.SYNONYMS.get(name, name)] = _decode(value)
    if ssl := found.pop("ssl", ""):
        found.setdefault("sslmode", _jdbc(ssl))
    # An empty value stands for none, as in libpq.
    return {name: value for name, value in found.items() if value}


def _jdbc(value: str) -> str:
    """`ssl=true`, as JDBC and libpq's URLs have it."""
    return {"true": "require", "1": "require", "false": "disable", "0": "disable"}.get(value.lower(), value)


def _decode(text: str) -> str:
    try:
        decoded = unquote(text, errors="strict")
        decoded.encode()
    except UnicodeError:
        raise ConfigError("is not UTF-8, once its percent signs are decoded") from None
    if "\0" in decoded:
        raise ConfigError("has a NUL character (%00) in it")
    return decoded


# ---- what may be in it -------------------------------------------------------------------------------------


def _hosts(names: str | None, ports: str | None, authority: bool) -> tuple[Host, ...]:
    if names is None:
        if authority:
            raise ConfigError("names no host (for a socket of this machine, add ?host=/var/run/postgresql)")
        return ()
    hosts = [_host(name.strip()) for name in names.split(",")]
    given = [_port(text) for text in ports.split(",")] if ports else [5432]
    if len(given) not in (1, len(hosts)):
        raise ConfigError(f"has {len(hosts)} hosts and {len(given)} ports: give one port, or one for each host")
    numbers = given * len(hosts) if len(given) == 1 else given
    return tuple(Host(name, own or number) for (name, own), number in zip(hosts, numbers, strict=True))


def _host(text: str) -> tuple[str, int | None]:
    """Return a host's name, and its port where that follows it: in ?host= that is the driver's way, not libpq's."""
    name, colon, port = text.partition(":")
    alone = text.startswith("/") or not colon or ":" in port
    name = text.removeprefix("[").removesuffix("]") if alone else name
    if not name or (name[0] != "/" and re.search(r"[\s@?#/\\]", name)):
        raise ConfigError(f"a host's name is missing or cannot be one ({_ESCAPE})")
    return name, None if alone else _port(port)


def _port(text: str) -> int:
    if text == "":
        return 5432
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise ConfigError(f"the port must be a number from 1 to 65535 ({_ESCAPE})")
    return int(text)


def _connect_timeout(text: str | None) -> float | None:
    """Return the seconds; None also for 0 and less, for ever in libpq: nothing here waits for ever. 1 counts as 2."""
    return max(2.0, float(text)) if text is not None and int(text) > 0 else None


def _options(text: str) -> tuple[dict[str, str], str | None]:
    """Return the settings in `-c name=value` and `--name=value`; and the rest."""
    words = re.findall(r"(?:\\.|[^\s\\])+", text)
    settings, rest = {}, []
    while words:
        word = words.pop(0)
        if word == "-c" and words:
            word = "-c" + words.pop(0)
        name, equals, value = word.removeprefix("--").removeprefix("-c").partition("=")
        if word.startswith("-") and equals and re.fullmatch(r"[A-Za-z_][\w.-]*", name):
            settings[name.replace("-", "_")] = re.sub(r"\\(.)", r"\1", value)
        else:
            rest.append(word)
    return settings, " ".join(rest) or None


def _tls(given: Mapping[str, str], hosts: tuple[Host, ...]) -> tuple[str | None, str | None]:
    """Return sslmode and sslrootcert. On a socket there is no TLS, as in libpq.

    Raises:
        ConfigError: the server is to be verified, but by nothing; or by the machine's own certificates, but not in full.
    """
    mode, rootcert = libpq.found(given, "sslmode"), libpq.found(given, "sslrootcert")
    if hosts and all(host.is_socket for host in hosts):
        return "disable", None
    if rootcert == "system" and mode not in (None, "verify-full"):
        raise ConfigError("sslrootcert=system needs sslmode=verify-full")
    if rootcert == "system":
        return "verify-full", rootcert
    if mode in ("verify-ca", "verify-full") and not rootcert and not (libpq.home() / ".postgresql/root.crt").exists():
        raise ConfigError(f"sslmode={mode} needs sslrootcert: a file, or `system` for what this machine trusts")
    return mode, rootcert
