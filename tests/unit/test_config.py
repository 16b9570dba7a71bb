"""The settings: every variable, its wrong values, and the page that lists them all."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from insforge_realtime.config import EMPTY_IS_NONE, EMPTY_IS_WRONG, GROUPS, Config, load, variable
from insforge_realtime.errors import ConfigError

DOC = Path(__file__).parents[2] / "docs" / "configuration.md"
SENSITIVE = "hunter2"

LONG = "a secret that is long enough"
LONG_SECRET = "a secret of HS256 that is long enough"

# A value that is not the default, and what it becomes.
VALUES: dict[str, tuple[str, object]] = {
    "database_url": ("postgresql://u:p@h/d", "postgresql://u:p@h/d"),
    "listen_url": ("postgres://h/d", "postgres://h/d"),
    "db_connections": ("7", 7),
    "host": ("0.0.0.0", "0.0.0.0"),
    "port": ("0", 0),
    "jwt_secret": (LONG_SECRET, SecretStr(LONG_SECRET)),
    "jwks_url": ("https://example.com/jwks", "https://example.com/jwks"),
    "jwt_audience": ("me", "me"),
    "jwt_issuer": ("you", "you"),
    "anon_key": ("anon_1", SecretStr("anon_1")),
    "api_key": ("ik_1", SecretStr("ik_1")),
    "allow_anonymous": ("true", True),
    "cors_origins": ("https://a.example, https://b.example,", ["https://a.example", "https://b.example"]),
    "transports": ("websocket", ["websocket"]),
    "root_path": ("/a/b/", "/a/b"),
    "trusted_proxies": ("10.0.0.0/8, ::1,", [ip_network("10.0.0.0/8"), ip_network("::1")]),
    "ssl_certfile": ("cert.pem", Path("cert.pem")),
    "ssl_keyfile": ("/etc/key.pem", Path("/etc/key.pem")),
    "log_level": ("debug", "debug"),
    "log_format": ("json", "json"),
    "max_log_lines_per_second": ("0", 0.0),
    "log_buffer_bytes": ("0", 0),
    "max_payload_bytes": ("0", 0),
    "max_name_bytes": ("0", 0),
    "max_channels_per_connection": ("0", 0),
    "max_connections": ("10", 10),
    "max_sockets": ("0", 0),
    "max_sockets_per_address": ("0", 0),
    "max_unauthenticated": ("500", 500),
    "max_connect_bytes": ("0", 0),
    "max_refused_connects": ("1", 1),
    "max_handshakes_per_second": ("0.5", 0.5),
    "max_connects_per_second": ("0", 0.0),
    "max_messages_per_second": ("0.5", 0.5),
    "max_bytes_per_second": ("0", 0),
    "max_pending_per_user": ("0", 0),
    "max_buffered_bytes": ("0", 0),
    "max_head_bytes": ("0", 0),
    "max_headers": ("7", 7),
    "max_pipelined": ("0", 0),
    "policy_timeout": ("1.5", 1.5),
    "ping_interval": ("1", 1.0),
    "ping_timeout": ("2", 2.0),
    "connect_timeout": ("3", 3.0),
    "request_timeout": ("0.5", 0.5),
    "answer_timeout": ("1", 1.0),
    "feed_fallback_seconds": ("0", 0.0),
    "feed_trail_seconds": ("120", 120.0),
    "max_lag_seconds": ("0", 0.0),
    "migrate_lock_wait": ("300", 300.0),
    "webhook_secret": ("whsec_MDEyMzQ1Njc4OWFiY2RlZg==", SecretStr("whsec_MDEyMzQ1Njc4OWFiY2RlZg==")),
    "webhook_allow_networks": ("127.0.0.0/8, ::1", [ip_network("127.0.0.0/8"), ip_network("::1/128")]),
    "webhook_timeout": ("0.5", 0.5),
    "webhook_retry_delays": ("0.5, 1,60", [0.5, 1.0, 60.0]),
    "webhook_lease_margin": ("1", 1.0),
    "webhook_concurrency": ("7", 7),
    "webhook_concurrency_per_host": ("3", 3),
    "webhook_breaker_failures": ("0", 0),
}

WRONG: dict[str, list[str]] = {
    "database_url": [
        "mysql://u@h/d",
        "host=h user=u",
        "postgresql",
        "postgresql:h",
        "http://h",
        "postgresql://h:x/d",
    ],
    "listen_url": ["redis://h", "postgresql://h/d?sslmode=banana"],
    "db_connections": ["0", "101", "two", "1.5"],
    "host": [],
    "port": ["-1", "65536", "http"],
    "jwt_secret": ["", "  ", "x" * 31, "ä" * 15],
    "jwks_url": ["", "ftp://h", "file:///etc/passwd"],
    "jwt_audience": [""],
    "jwt_issuer": [""],
    "anon_key": [""],
    "api_key": [""],
    "allow_anonymous": ["maybe", "2"],
    "cors_origins": [],
    "transports": [",", "webtransport", "polling,carrier-pigeon"],
    "root_path": ["realtime", "/a b", "/a?b", "/a//b", "http://h/a"],
    "trusted_proxies": ["localhost", "10.0.0.0/33", "*"],
    "ssl_certfile": ["", " "],
    "ssl_keyfile": [""],
    "log_level": ["loud", "INFO"],
    "log_format": ["xml"],
    "max_log_lines_per_second": ["-1", "nan", "inf"],
    "log_buffer_bytes": ["-1", "1MB"],
    "max_payload_bytes": ["-1", "1MB"],
    "max_name_bytes": ["-1"],
    "max_channels_per_connection": ["-1", "many"],
    "max_connections": ["-1"],
    "max_sockets": ["-1", "x"],
    "max_sockets_per_address": ["-1"],
    "max_unauthenticated": ["-1", "1.5"],
    "max_connect_bytes": ["-1", "20 KB"],
    "max_refused_connects": ["-1"],
    "max_handshakes_per_second": ["-0.1", "nan", "inf"],
    "max_connects_per_second": ["-0.1", "nan", "inf"],
    "max_messages_per_second": ["-0.1", "nan", "inf"],
    "max_bytes_per_second": ["-1", "1MB", "0.5"],
    "max_pending_per_user": ["-1", "many", "0.5"],
    "max_buffered_bytes": ["-1", "inf"],
    "max_head_bytes": ["-1", "32k"],
    "max_headers": ["-1"],
    "max_pipelined": ["-1", "x"],
    "policy_timeout": ["0", "-1", "nan", "inf"],
    "ping_interval": ["0", "-1", "nan", "inf"],
    "ping_timeout": ["0", "-1", "soon"],
    "connect_timeout": ["0", "-1", "inf"],
    "request_timeout": ["0", "inf"],
    "answer_timeout": ["0", "-1"],
    "feed_fallback_seconds": ["-1", "nan"],
    "feed_trail_seconds": ["0", "3601", "inf"],
    "max_lag_seconds": ["-1", "nan"],
    "migrate_lock_wait": ["-1", "inf", "forever"],
    "webhook_secret": [
        "",
        " ",
        "too short",
        "whsec_",
        "whsec_no base64 at all!",
        "whsec_MTIz",
        f"{LONG},",
        f"{LONG},a,b",
    ],
    "webhook_allow_networks": ["10.0.0.0/33", "10.0.0.1/8", "localhost", "::1/129"],
    "webhook_timeout": ["0", "-1", "601", "nan"],
    "webhook_retry_delays": ["-1", "soon", "1;2", "nan", "1,inf", ",".join(["1"] * 21)],
    "webhook_lease_margin": ["0", "-1", "inf"],
    "webhook_concurrency": ["0", "10001", "x"],
    "webhook_concurrency_per_host": ["0", "1001"],
    "webhook_breaker_failures": ["-1", "1.5"],
}


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of ours, and no `.env`."""
    for name in os.environ:
        if name.upper().startswith("REALTIME_") or name.upper() == "DATABASE_URL":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_the_tables_of_this_test_have_every_field() -> None:
    assert set(VALUES) == set(WRONG) == set(Config.model_fields)


def test_without_any_variable_the_defaults_hold() -> None:
    config = load()
    for name, field in Config.model_fields.items():
        assert field.default is not PydanticUndefined
        assert getattr(config, name) == field.default


@pytest.mark.parametrize("field", VALUES)
def test_every_variable_sets_its_field_and_no_other(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, value = VALUES[field]
    monkeypatch.setenv(variable(field), text)
    config, untouched = load(), Config.model_construct()
    assert getattr(config, field) == value != getattr(untouched, field)
    for other in set(Config.model_fields) - {field}:
        assert getattr(config, other) == getattr(untouched, other)


@pytest.mark.parametrize("field", VALUES)
def test_a_field_is_set_by_its_own_variable_only(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if field != "database_url":
        monkeypatch.setenv(field.upper(), VALUES[field][0])  # PORT and HOST belong to others
    monkeypatch.setenv(f"{variable(field)}_X", "unknown variables are nobody's business")
    assert load() == Config.model_construct()


@pytest.mark.parametrize(("field", "text"), [(field, text) for field, texts in WRONG.items() for text in texts])
def test_a_wrong_value_is_one_line_that_names_the_variable(
    field: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable(field), text)
    with pytest.raises(ConfigError) as caught:
        load()
    line = str(caught.value)
    assert line.startswith(f"{variable(field)}: ")
    assert "\n" not in line
    assert "pydantic" not in line.lower()
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "text",
    [
        f"mysql://user:{SENSITIVE}@host/db",
        f"host=localhost user=u password={SENSITIVE}",
        f"mysql://host/db?password={SENSITIVE}",
        f"user:{SENSITIVE}",
        f"mysql://user:{SENSITIVE}@host/db@x\n{SENSITIVE}",
        f"mysql://user:{SENSITIVE}℀@host",
        f"mysql://[{SENSITIVE}",
    ],
)
@pytest.mark.parametrize("field", ["database_url", "listen_url", "jwks_url"])
def test_a_wrong_url_is_not_quoted_because_a_password_may_be_in_it(
    field: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable(field), text)
    with pytest.raises(ConfigError) as caught:
        load()
    assert SENSITIVE not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_secrets_do_not_show_when_a_configuration_is_printed() -> None:
    config = load(jwt_secret=SENSITIVE * 5, anon_key=SENSITIVE, api_key=SENSITIVE)
    assert SENSITIVE not in repr(config) + str(config)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(field=st.sampled_from(sorted(VALUES)), text=st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_any_text_in_any_variable_is_taken_or_refused_in_one_line(field: str, text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(variable(field), text)
        refusal = None
        try:
            load()
        except ConfigError as error:
            refusal = str(error)
    if refusal is not None:
        assert refusal.startswith(f"{variable(field)}: ")
        assert len(refusal.splitlines()) == 1


EMPTY = ("", " ", " \t ")


@pytest.mark.parametrize("text", EMPTY, ids=repr)
@pytest.mark.parametrize("field", sorted(set(VALUES) - EMPTY_IS_WRONG - EMPTY_IS_NONE))
def test_a_variable_that_is_empty_is_not_set(field: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable(field), text)
    assert load() == Config.model_construct()
    value, meant = VALUES[field]
    Path(".env").write_text(f"{variable(field)}={value}\n")
    assert getattr(load(), field) == meant
    monkeypatch.delenv(variable(field))
    Path(".env").write_text(f"{variable(field)}={text}\n")
    assert load() == Config.model_construct()


@pytest.mark.parametrize("text", EMPTY, ids=repr)
@pytest.mark.parametrize("field", sorted(EMPTY_IS_WRONG))
def test_what_guards_the_server_is_not_switched_off_by_a_variable_that_is_empty(
    field: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A secret that was lost on the way, a check that would not be made."""
    monkeypatch.setenv(variable(field), text)
    with pytest.raises(ConfigError, match=f"^{variable(field)}: is set but empty; leave it out or give it a value"):
        load()


@pytest.mark.parametrize("text", EMPTY, ids=repr)
@pytest.mark.parametrize("field", sorted(EMPTY_IS_NONE))
def test_a_list_that_is_empty_is_empty(field: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable(field), text)
    assert getattr(load(), field) == []


def test_an_empty_database_is_a_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "")
    with pytest.raises(ConfigError, match=r"^missing: DATABASE_URL"):
        load(jwt_secret=LONG_SECRET).ready_to_serve()


def test_an_empty_value_in_code_is_still_a_mistake() -> None:
    with pytest.raises(ConfigError, match=r"^REALTIME_PORT: "):
        load(port="")


def test_a_long_wrong_value_is_cut() -> None:
    with pytest.raises(ConfigError) as caught:
        load(port="x" * 10_000)
    assert len(str(caught.value)) < 250


def test_a_dotenv_file_is_read_and_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text(
        'DATABASE_URL=postgresql://file/db\nREALTIME_PORT="8000"\n# a comment\nPORT=1\nFOO=bar\nREALTIME_FOO=1\n'
    )
    config = load()
    assert (config.database_url, config.port) == ("postgresql://file/db", 8000)
    monkeypatch.setenv("REALTIME_PORT", "8001")
    assert load().port == 8001
    assert load(port=8002).port == 8002
    assert load(port=None).port == 8001


def test_a_wrong_value_in_a_dotenv_file_names_the_variable() -> None:
    Path(".env").write_text("REALTIME_PORT=http\n")
    with pytest.raises(ConfigError, match=r"^REALTIME_PORT: "):
        load()


def test_a_dotenv_file_that_is_no_text_is_one_line() -> None:
    Path(".env").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"^\.env: cannot be read"):
        load()


def test_a_configuration_does_not_change() -> None:
    with pytest.raises(Exception, match="frozen"):
        load().port = 1


# What a server needs.


def test_everything_that_is_missing_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load().ready_to_serve()
    assert str(caught.value) == (
        "missing: DATABASE_URL (the PostgreSQL database); "
        "a way to verify tokens: REALTIME_JWT_SECRET or REALTIME_JWKS_URL"
    )


def test_a_database_alone_is_not_enough_and_a_secret_alone_neither() -> None:
    with pytest.raises(ConfigError, match=r"^missing: a way to verify tokens"):
        load(database_url="postgresql://h/d").ready_to_serve()
    with pytest.raises(ConfigError, match=r"^missing: DATABASE_URL \(the PostgreSQL database\)$"):
        load(jwt_secret=LONG_SECRET).ready_to_serve()


@pytest.mark.parametrize(
    "way",
    [
        {"jwt_secret": LONG_SECRET},
        {"jwks_url": "https://h/jwks"},
        {"anon_key": "anon_x"},
        {"api_key": "ik_x"},
        {"allow_anonymous": True},
    ],
    ids=lambda way: next(iter(way)),
)
def test_any_way_to_tell_who_a_client_is_will_do(way: dict[str, object]) -> None:
    config = load(database_url="postgresql://h/d", **way)
    assert config.ready_to_serve() is config


def test_origins_are_compared_whole_and_programs_send_none() -> None:
    config = load(cors_origins="https://a.example")
    assert config.allows_origin(None)
    assert config.allows_origin("https://a.example")
    for other in ("https://a.example.evil", "http://a.example", "https://b.example", "null", ""):
        assert not config.allows_origin(other)
    assert load().allows_origin("https://anything.example")
    assert not load(cors_origins="").allows_origin("https://a.example")


# The command line.


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "insforge_realtime", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({}, "error: missing: DATABASE_URL"),
        ({"REALTIME_PORT": "http"}, "error: REALTIME_PORT: "),
        ({"DATABASE_URL": f"host=h password={SENSITIVE}"}, "error: DATABASE_URL: "),
        ({"REALTIME_JWT_SECRET": " "}, "error: REALTIME_JWT_SECRET: "),
        ({"REALTIME_JWT_SECRET": SENSITIVE}, "error: REALTIME_JWT_SECRET: is shorter than 32 bytes"),
    ],
    ids=["nothing", "port", "url", "secret", "short secret"],
)
def test_serve_ends_with_status_2_and_one_line_on_a_wrong_setting(environment: dict[str, str], line: str) -> None:
    done = command("serve", **environment)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
    assert SENSITIVE not in done.stderr


@pytest.mark.parametrize("name", ["dev", "serve", "migrate", "token", "check", "webhooks list"])
def test_a_secret_that_can_be_guessed_ends_every_command_and_says_how_to_make_one(name: str) -> None:
    done = command(*name.split(), REALTIME_JWT_SECRET=SENSITIVE)
    assert done.returncode == 2
    assert "openssl rand" in done.stderr
    assert SENSITIVE not in done.stderr


def test_a_secret_of_32_bytes_is_long_enough_however_it_is_given() -> None:
    for secret in ("x" * 32, SecretStr("ä" * 16)):
        assert load(jwt_secret=secret).jwt_secret is not None
    with pytest.raises(ConfigError, match="shorter than 32 bytes"):
        load(jwt_secret=SecretStr("x"))


# The page.


def test_the_page_names_the_variables_for_which_empty_is_wrong_or_means_none() -> None:
    said = DOC.read_text().split("## All variables")[0]
    named = set(re.findall(r"REALTIME_[A-Z_]+", said.split("is not set")[1]))
    assert named >= {variable(field) for field in EMPTY_IS_WRONG | EMPTY_IS_NONE}
    assert set(Config.model_fields) >= EMPTY_IS_WRONG | EMPTY_IS_NONE


def documented() -> list[tuple[str, str, str]]:
    """The rows of the page's table: variable, default, meaning."""
    table = DOC.read_text().split("## All variables")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([A-Z_]+)` \| (.*?) \| (.*) \|$", table, re.MULTILINE)
    return [(name, default, meaning) for name, default, meaning in rows]


def default_as_text(value: object) -> str:
    if value in (None, "", []):
        return "–"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list):
        return f"`{','.join(item if isinstance(item, str) else f'{item:g}' for item in value)}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def test_the_page_has_exactly_the_fields_defaults_and_descriptions_of_config() -> None:
    expected = [
        (variable(name), default_as_text(field.default), field.description)
        for name, field in Config.model_fields.items()
    ]
    assert documented() == expected


def test_the_page_has_the_groups_of_config_with_their_fields() -> None:
    chapters = DOC.read_text().split("## All variables")[1].split("\n## ")[0].split("\n### ")[1:]
    found = [(text.splitlines()[0], re.findall(r"^\| `([A-Z_]+)` ", text, re.MULTILINE)) for text in chapters]
    assert found == [((group.__doc__ or "").rstrip("."), [*map(variable, group.model_fields)]) for group in GROUPS]
    assert [name for group in GROUPS for name in group.model_fields] == list(Config.model_fields)  # each in one group


def test_a_default_of_the_page_is_what_one_would_write(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, default, _ in documented():
        if default != "–":
            monkeypatch.setenv(name, default.strip("`"))
    assert load() == Config.model_construct()


def test_the_page_names_no_variable_that_does_not_exist() -> None:
    known = {variable(name) for name in Config.model_fields}
    assert set(re.findall(r"REALTIME_[A-Z_]+|DATABASE_URL", DOC.read_text())) <= known
