"""Connection URLs: what providers print is read, mistakes are named, and nothing of a URL is ever quoted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insforge_realtime.config import load
from insforge_realtime.dsn import Dsn, Host, discreet, parse, without_login, without_passwords
from insforge_realtime.errors import ConfigError

PASSWORD = "hunter2"


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of libpq's, and a home with nothing in it."""
    for name in os.environ:
        if name.startswith("PG") or name == "DATABASE_URL":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


def places(url: str) -> list[str]:
    return [host.place for host in parse(url).hosts]


def refusal(url: str) -> str:
    """Why a URL is refused, in one line that quotes no password."""
    with pytest.raises(ConfigError) as caught:
        parse(url)
    line = str(caught.value)
    assert PASSWORD not in line
    assert "\n" not in line
    return line


# ---- where to ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://h/d", ["h:5432"]),
        ("postgres://h:6543/d", ["h:6543"]),
        ("POSTGRESQL://h", ["h:5432"]),
        ("postgresql://[::1]:5433/d", ["[::1]:5433"]),
        ("postgresql://[fe80::1%25eth0]/d", ["[fe80::1%eth0]:5432"]),
        ("postgresql://h1:1,h2:2,[::3]/d", ["h1:1", "h2:2", "[::3]:5432"]),
        ("postgresql://h1,h2/d?port=7", ["h1:7", "h2:7"]),
        ("postgresql:///d?host=h1,h2&port=1,2", ["h1:1", "h2:2"]),
        ("postgresql:///d?host=h1:1,h2:2", ["h1:1", "h2:2"]),
        ("postgresql:///d?host=::1", ["[::1]:5432"]),
        ("postgresql:///d?host=/var/run/postgresql", ["/var/run/postgresql:5432"]),
        ("postgresql://%2Fvar%2Frun%2Fpostgresql:6/d", ["/var/run/postgresql:6"]),
        ("postgresql://u:p@localhost/d?host=/cloudsql/a:b:c", ["/cloudsql/a:b:c:5432"]),
        ("postgresql:///d?hostaddr=127.0.0.1", ["127.0.0.1:5432"]),
        ("postgresql:///d", []),
        (" postgresql://h/d\n", ["h:5432"]),
    ],
)
def test_the_hosts_of_a_url_are_those_that_libpq_would_try(url: str, expected: list[str]) -> None:
    assert places(url) == expected


def test_variables_name_the_host_where_the_url_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "h1,h2")
    monkeypatch.setenv("PGPORT", "7")
    assert places("postgresql://u@/d") == ["h1:7", "h2:7"]
    assert places("postgresql://h3:8/d") == ["h3:8"]


@pytest.mark.parametrize(
    ("login", "user", "password"),
    [
        ("u:p%40s%2Fs%20%25", "u", "p@s/s %"),
        ("u:p@ss", "u", "p@ss"),
        ("u:p:s#s?s[s", "u", "p:s#s?s[s"),
        ("u:100%", "u", "100%"),
        ("u%40tenant:", "u@tenant", None),
        ("postgres.abcdef:p+s", "postgres.abcdef", "p+s"),
    ],
)
def test_a_password_may_have_special_characters(login: str, user: str, password: str | None) -> None:
    read = parse(f"postgresql://{login}@h:6543/d?sslmode=require")
    assert (read.user, read.password, read.database) == (user, password, "d")
    assert read.hosts == (Host("h", 6543),)
    assert password is None or password not in repr(read)


def test_parameters_win_over_what_stands_before_them() -> None:
    read = parse("postgresql://u:p@h:1/d?user=v&password=q%26&dbname=e&port=2")
    assert (read.user, read.password, read.database, read.hosts) == ("v", "q&", "e", (Host("h", 2),))


# ---- what providers print ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "ignored"),
    [
        ("sslmode=require&channel_binding=require", ["channel_binding"]),
        ("sslmode=require&options=endpoint%3Dep-cool-name-123", []),
        ("connect_timeout=10&application_name=x&fallback_application_name=y&target_session_attrs=any", []),
        ("keepalives=1&keepalives_idle=5&keepalives_interval=2&keepalives_count=2&tcp_user_timeout=1000", []),
        ("gssencmode=disable&channel_binding=prefer&client_encoding=UTF8&sslcompression=0", []),
        ("pgbouncer=true&connection_limit=1&pool_timeout=0&schema=public", ["pgbouncer", "connection_limit", "schema"]),
        ("uselibpqcompat=true&sslmode=no-verify", []),
        ("prepareThreshold=0&ApplicationName=x&connectTimeout=3", ["prepareThreshold", "ApplicationName"]),
        ("default_query_exec_mode=exec&statement_cache_mode=describe&pool_max_conns=4", ["statement_cache_mode"]),
        ("supa=base-pooler.x&workaround=supabase-pooler.vercel", ["supa", "workaround"]),
        ("sslaccept=accept_invalid_certs", ["sslaccept"]),
        ("ssl=true&sslmode=", []),
        ("whatever=1", ["whatever"]),
    ],
)
def test_what_providers_print_is_read_and_what_means_nothing_here_is_named(parameters: str, ignored: list[str]) -> None:
    notes = parse(f"postgresql://u:p@h/d?{parameters}").notes
    for name in ignored:
        assert any(name in note for note in notes), notes
    assert bool(notes) == bool(ignored)


def test_a_note_has_no_values_in_it() -> None:
    assert PASSWORD not in " ".join(parse(f"postgresql://h/d?whatever={PASSWORD}&client_encoding={PASSWORD}").notes)


def test_a_channel_binding_that_is_not_enforced_is_said_to_be_so_with_what_to_do() -> None:
    [note] = parse("postgresql://h/d?sslmode=require&channel_binding=require").notes
    assert "not enforced" in note
    assert "verify-full" in note


@pytest.mark.parametrize(
    ("options", "settings", "startup"),
    [
        ("-c search_path=a,b -c jit=on", {"search_path": "a,b", "jit": "on"}, None),
        ("-csearch_path=a\\ b --work-mem=1MB", {"search_path": "a b", "work_mem": "1MB"}, None),
        ("project=x", {}, "project=x"),
        ("endpoint=ep-1 -c a.b=c=d", {"a.b": "c=d"}, "endpoint=ep-1"),
        ("", {}, None),
    ],
)
def test_options_become_settings_and_what_is_for_a_pooler_stays(
    options: str, settings: dict[str, str], startup: str | None
) -> None:
    read = parse(f"postgresql://h/d?options={options}")
    assert (dict(read.settings), read.startup) == (settings, startup)


@pytest.mark.parametrize(("value", "seconds"), [("7", 7.0), ("1", 2.0), ("0", None), ("-1", None)])
def test_a_connect_timeout_is_that_of_libpq_but_nothing_waits_for_ever(value: str, seconds: float | None) -> None:
    assert parse(f"postgresql://h/d?connect_timeout={value}").connect_timeout == seconds


def test_several_hosts_mean_the_one_that_can_be_written_to() -> None:
    assert parse("postgresql://h1/d").target == "any"
    assert parse("postgresql://h1,h2/d").target == "read-write"
    assert parse("postgresql://h1,h2/d?target_session_attrs=prefer-standby").target == "prefer-standby"


def test_a_service_is_looked_up_and_the_url_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".pg_service.conf").write_text("[mine]\nhost=h1,h2\nport=7\ndbname=d%1\nuser=u\npassword=p#p\n")
    read = parse("postgresql:///?service=mine&user=v")
    assert (read.hosts, read.user, read.password, read.database) == (
        (Host("h1", 7), Host("h2", 7)), "v", "p#p", "d%1",
    )  # fmt: skip
    (tmp_path / "elsewhere").write_text("[mine]\nhost=h3\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "elsewhere"))
    assert places("postgresql:///?service=mine") == ["h3:5432"]
    assert "service" in refusal("postgresql:///?service=yours")


# ---- TLS ---------------------------------------------------------------------------------------------------


def mode(parameters: str) -> str | None:
    return parse(f"postgresql://h/d?{parameters}").sslmode


def test_the_modes_of_libpq_and_of_others_are_understood(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    authority.touch()
    for name in ("disable", "allow", "prefer", "require", "no-verify"):
        assert mode(f"sslmode={name}") == name
    for name in ("verify-ca", "verify-full"):
        assert mode(f"sslmode={name}&sslrootcert={authority}") == name
    assert mode("") is None
    assert (mode("ssl=true"), mode("ssl=false"), mode("ssl=1&sslmode=prefer")) == ("require", "disable", "prefer")


def test_the_systems_certificates_mean_full_verification() -> None:
    read = parse("postgresql://h/d?sslrootcert=system")
    assert (read.sslmode, read.driver) == ("verify-full", {"sslrootcert": "system"})
    assert "verify-full" in refusal("postgresql://h/d?sslrootcert=system&sslmode=require")


def test_a_variable_counts_where_the_url_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    monkeypatch.setenv("PGSSLROOTCERT", "system")
    assert mode("") == "verify-full"
    monkeypatch.setenv("PGSSLMODE", "banana")
    assert "sslmode must be one of" in refusal("postgresql://h/d")


def test_a_socket_has_no_tls() -> None:
    assert parse("postgresql:///d?host=/run/postgresql&sslmode=require").sslmode == "disable"


# ---- mistakes ----------------------------------------------------------------------------------------------

MISTAKES = {
    "http://h/d": "must be a URL that starts with postgresql://",
    "postgresql://u:hunter2@h/d?sslmod=require": "there is no parameter sslmod; did you mean sslmode?",
    "postgresql://u:hunter2@h/d?sslMode=require": "there is no parameter sslMode; did you mean sslmode?",
    "postgresql://h/d?passwd=hunter2": "there is no parameter passwd; did you mean password?",
    "postgresql://h/d?connection_timeout=3": "did you mean connect_timeout?",
    "postgresql://u:hunter2@h/d?sslmode=banana": "sslmode must be one of disable, allow, prefer",
    "postgresql://h/d?sslmode=hunter2": "sslmode must be one of",
    "postgresql://h/d?ssl=hunter2": "sslmode must be one of",
    "postgresql://h/d?target_session_attrs=master": "target_session_attrs must be one of any, read-write",
    "postgresql://u:hunter2@h:abc/d": "the port must be a number",
    "postgresql://u:hunter2@h:0/d": "the port must be a number",
    "postgresql://u:hunter2@h:70000/d": "the port must be a number",
    "postgresql://h:5432:5433/d": "the host cannot be read",
    "postgresql://::1/d": "an IPv6 address goes into brackets",
    "postgresql://u:hunter2@[::1/d": "the host cannot be read",
    "postgresql://u:hunter2@/d": "names no host",
    "postgresql://:5432/d": "names no host",
    "postgresql://u:hunter2@h1,,h2/d": "a host's name is missing",
    "postgresql://u:hunter2@a b/d": "a host's name is missing or cannot be one",
    "postgresql://h1:1,h2:2/d?port=1,2,3": "has 2 hosts and 3 ports",
    "postgresql://u:hunt/er2@h/d": "write / ? # @ : as %2F",
    "postgresql://u:x/y?hunter2&z@h/d": "the port must be a number",
    "postgresql://u:hunter2@h/d?pgbouncer": "the parameter pgbouncer has no value",
    "postgresql://h/d?connect_timeout=soon": "connect_timeout must be a whole number",
    "postgresql://h/d?keepalives_idle=1.5": "keepalives_idle must be a whole number",
    "postgresql://h/d?sslmode=verify-full": "sslmode=verify-full needs sslrootcert",
    "postgresql://h/d?sslmode=verify-ca&sslrootcert=/hunter2.pem": "sslrootcert names a file that is missing",
    "postgresql://h/d?sslcert=/hunter2.pem": "sslcert names a file that is missing",
    "postgresql://h/d?require_auth=scram-sha-256": "require_auth cannot be enforced",
    "postgresql://h/d?sslaccept=strict": "sslaccept cannot be honoured",
    "postgresql://h/d?sslcertmode=require": "sslcertmode must be",
    "postgresql://h/d?gssencmode=require": "gssencmode must be one of disable, prefer",
    "postgresql://h/d?replication=database": "replication",
    "postgresql://h/d?host=h&hostaddr=127.0.0.1": "hostaddr",
    "postgresql://u:%00@h/d": "NUL",
    "postgresql://u:%ff@h/d": "UTF-8",
    "postgresql://h/d?=hunter2": "what follows the question mark",
}


@pytest.mark.parametrize("url", MISTAKES)
def test_a_mistake_is_named_when_the_settings_are_read(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MISTAKES[url] in refusal(url)
    for variable in ("DATABASE_URL", "REALTIME_LISTEN_URL"):
        with monkeypatch.context() as patch:
            patch.setenv(variable, url)
            with pytest.raises(ConfigError, match=f"^{variable}: ") as caught:
                load()
            assert MISTAKES[url] in str(caught.value)


@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_any_text_is_a_url_or_is_refused_in_one_line(text: str) -> None:
    for url in (text, f"postgresql://{text}", f"postgresql://u:{text}@h/d", f"postgresql://h/d?{text}"):
        said = "read"
        try:
            assert isinstance(parse(url), Dsn)
        except ConfigError as error:
            said = str(error)
        assert len(said.splitlines()) == 1


@given(st.text(st.characters(codec="utf-8", exclude_characters="/\0%?#@"), min_size=1, max_size=30))
def test_any_password_without_a_slash_is_read_as_it_stands(text: str) -> None:
    assert parse(f"postgresql://u:{text}@h:1/d").password == text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:hunter2@h:5433/d?sslmode=require", "postgresql://u@h:5433/d?sslmode=require"),
        ("postgresql://h/d", "postgresql://h/d"),
        ("postgres://u:hunt@er2@h1,h2/d", "postgres://u@h1,h2/d"),
        ("postgresql://u@h/d?password=hunter2&%70assword=hunter2", "postgresql://u@h/d"),
        ("postgresql://h/d?application_name=k&sslpassword=hunter2", "postgresql://h/d?application_name=k"),
    ],
)
def test_a_url_is_shown_without_its_passwords(url: str, shown: str) -> None:
    assert discreet(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hush!hush@h/x",
        "postgresql://me:hush%21hush@h/x",
        "postgresql://me:hush!hush@[::1/x",
        "postgresql://h/x?user=me&password=hush%21hush",
        "postgresql://h/x?%70assword=hush!hush",
        "postgresql://h/x?sslpassword=hush!hush&sslmode=disable",
    ],
)
def test_a_text_loses_the_passwords_of_urls_as_written_and_decoded(url: str) -> None:
    told = without_passwords(f"{url} is wrong: 'hush!hush' at x", None, url)
    assert "hush" not in told
    assert told.endswith(" is wrong: '…' at x")


def test_a_url_of_any_scheme_loses_its_login() -> None:
    assert without_login("https://me:hush@hooks.example.com/a@b?c=d@e") == "https://…@hooks.example.com/a@b?c=d@e"
    assert without_login("https://hooks.example.com/a@b") == "https://hooks.example.com/a@b"
