"""`tail` and `publish` as processes, in a terminal's place: what they print, how they end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from insforge_realtime.pg.demo import ALICES_ORDER, BOB, BOBS_ORDER, ROOM
from support.client import run_sql, say
from support.databases import free_port
from support.servers import API_KEY, Server, token

Start = Callable[..., Server]

CHAT = f"chat:{ROOM}"
ORDER = f"order:{BOBS_ORDER}"


def environment(**variables: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("REALTIME_")}
    return {**inherited, **variables}


class Tail:
    """One `tail`: its lines as they come."""

    def __init__(self, server: Server, *arguments: str, **variables: str) -> None:
        variables = {"REALTIME_URL": server.url, "REALTIME_TOKEN": token(BOB), **variables}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "insforge_realtime", "tail", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding=variables.get("PYTHONIOENCODING", "utf-8"),
            env=environment(**variables),
            cwd="/",
            # Tests that run as a background job inherit from the shell that SIGINT is ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.out: list[str] = []
        self.err: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, args=pair, daemon=True)
            for pair in ((self.process.stdout, self.out), (self.process.stderr, self.err))
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _read(pipe: Any, lines: list[str]) -> None:
        for line in pipe:
            lines.append(line.rstrip("\n"))

    def wait_for(self, lines: list[str], text: str, number: int = 1) -> None:
        """Until so many lines contain the text."""
        deadline = time.monotonic() + 30
        while sum(text in line for line in lines) < number:
            assert time.monotonic() < deadline, (self.out, self.err)
            assert self.process.poll() is None, (self.out, self.err)
            time.sleep(0.01)

    def end(self, number: int | None = signal.SIGINT) -> int:
        """Its exit status; without a signal, as it ends by itself."""
        if number is not None:
            self.process.send_signal(number)
        status = self.process.wait(30)
        for reader in self._readers:
            reader.join()
        return status

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.end(None)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def tail(demo: str, start: Start) -> Iterator[Callable[..., Tail]]:
    """`tail(server, *arguments)`, gone at the end."""
    tails: list[Tail] = []

    def start_tail(server: Server, *arguments: str, **variables: str) -> Tail:
        tails.append(Tail(server, *arguments, **variables))
        return tails[-1]

    yield start_tail
    for one in tails:
        one.close()


def publish(server: Server, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "insforge_realtime", "publish", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        env=environment(REALTIME_URL=server.url, REALTIME_TOKEN=token(BOB)),
        cwd="/",
        timeout=60,
        check=False,
    )


def complaint(result: subprocess.CompletedProcess[str], status: int) -> str:
    assert (result.returncode, result.stdout) == (status, ""), result.stderr
    [line] = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


async def test_tail_prints_a_line_a_message_and_ctrl_c_ends_it(
    demo: str, start: Start, tail: Callable[..., Tail]
) -> None:
    following = tail(start(demo), ORDER, CHAT)
    following.wait_for(following.err, "following", 2)
    await run_sql(demo, f"UPDATE orders SET status = 'shipped' WHERE id = '{BOBS_ORDER}'")
    await say(demo, CHAT, payload='{"text": "[bold]héllo[/] \\u009b31m"}')
    following.wait_for(following.out, "said")
    assert following.end() == 130
    order, said = following.out
    assert re.fullmatch(rf"\d\d:\d\d:\d\d\.\d{{3}} {ORDER} UPDATE_order {{.*\"status\": \"shipped\".*}} system", order)
    assert said.endswith(f'{CHAT} said {{"text": "[bold]héllo[/] \\u009b31m"}} system')
    assert following.err == [f"following {ORDER}", f"following {CHAT}"]


async def test_tail_is_coloured_where_colours_are_wanted(demo: str, start: Start, tail: Callable[..., Tail]) -> None:
    following = tail(start(demo), ORDER, FORCE_COLOR="1")
    following.wait_for(following.err, "following")
    await say(demo, ORDER)
    following.wait_for(following.out, "said")
    assert "\x1b[" in following.out[0]


async def test_tail_json_is_one_object_a_line_at_once(demo: str, start: Start, tail: Callable[..., Tail]) -> None:
    following = tail(start(demo), ORDER, "--json", "--event", "said", "--event", "presence:join")
    following.wait_for(following.err, "following")
    await say(demo, ORDER, event="not wanted")
    for n in range(3):
        await say(demo, ORDER, payload=f'{{"n": {n}, "é": null}}')
        following.wait_for(following.out, "said", n + 1)  # it does not wait in a buffer
    lines = [json.loads(line) for line in following.out]
    assert [line["payload"] for line in lines] == [{"n": n, "é": None} for n in range(3)]
    assert {(line["event"], line["channel"]) for line in lines} == {("said", ORDER)}
    assert lines[0]["meta"].keys() == {"channel", "messageId", "senderType", "timestamp"}


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
async def test_tail_prints_everything_whatever_the_encoding_and_nothing_that_a_terminal_obeys(
    demo: str, start: Start, tail: Callable[..., Tail], encoding: str
) -> None:
    server = start(demo)
    pretty = tail(server, CHAT, "chat:nö 🙂", PYTHONIOENCODING=encoding)
    assert pretty.end(None) == 1  # there is no such channel, and it can say so
    assert "Traceback" not in "\n".join(pretty.err)
    pretty = tail(server, CHAT, PYTHONIOENCODING=encoding)
    machine = tail(server, CHAT, "--json", PYTHONIOENCODING=encoding)
    for following in (pretty, machine):
        following.wait_for(following.err, "following")
    await say(demo, CHAT, event="\u202eé 🙂", payload='{"k\\u001b": "\\u009b31m é 🙂 \u202e"}')
    await say(demo, CHAT, event="end")
    for following in (pretty, machine):
        following.wait_for(following.out, "end")
    shown = {"ascii": "\\xe9 \\U0001f642", "latin-1": "é \\U0001f642", "utf-8": "é 🙂"}[encoding]
    assert f" \\u202e{shown} " in pretty.out[0]
    assert f'{{"k\\u001b": "\\u009b31m {shown} \\u202e"}}' in pretty.out[0]
    said = json.loads(machine.out[0])
    assert (said["event"], said["payload"]) == ("\u202eé 🙂", {"k\x1b": "\x9b31m é 🙂 \u202e"})
    assert machine.out[0].isascii()


async def test_tail_lives_through_a_restart_of_the_server(demo: str, start: Start, tail: Callable[..., Tail]) -> None:
    server = start(demo)
    following = tail(server, ORDER, "--json")
    following.wait_for(following.err, "following")
    server.stop()
    following.wait_for(following.err, "connection lost")
    server.start()
    following.wait_for(following.err, "connected again")
    deadline = time.monotonic() + 30
    while not following.out:
        await say(demo, ORDER)  # it is connected a moment before it is subscribed again
        assert time.monotonic() < deadline
    assert json.loads(following.out[0])["event"] == "said"


async def test_tail_of_a_channel_that_is_refused_is_status_1(
    demo: str, start: Start, tail: Callable[..., Tail]
) -> None:
    server = start(demo)
    following = tail(server, ORDER, f"order:{ALICES_ORDER}")
    assert following.end(None) == 1
    assert following.out == []
    assert following.err[-1].startswith(f"error: order:{ALICES_ORDER}: ")
    assert "(UNAUTHORIZED)" in following.err[-1]


async def test_tail_of_a_channel_that_is_refused_later_is_status_1(
    demo: str, start: Start, tail: Callable[..., Tail]
) -> None:
    server = start(demo)
    following = tail(server, ORDER)
    following.wait_for(following.err, "following")
    await run_sql(demo, "DROP POLICY users_subscribe_own_orders ON realtime.channels")
    server.stop()
    server.start()
    assert following.end(None) == 1
    assert "(UNAUTHORIZED)" in following.err[-1]


@pytest.mark.parametrize("how", [[], ["--json"]], ids=["people", "json"])
async def test_tail_whose_reader_has_had_enough_is_status_0(demo: str, start: Start, how: list[str]) -> None:
    server = start(demo)
    with subprocess.Popen(
        [sys.executable, "-m", "insforge_realtime", "tail", ORDER, *how],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(REALTIME_URL=server.url, REALTIME_TOKEN=token(BOB)),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stderr.readline().startswith("following")
        await say(demo, ORDER)
        assert "said" in process.stdout.readline()
        process.stdout.close()
        await say(demo, ORDER, times=5)
        assert process.wait(30) == 0
        assert process.stderr.read() == ""


def test_tail_of_a_server_that_is_not_there_is_status_1(tail: Callable[..., Tail]) -> None:
    nobody = Server("postgresql://127.0.0.1/none", port=free_port())
    following = tail(nobody, ORDER)
    assert following.end(None) == 1
    [line] = following.err
    assert f"Cannot connect to {nobody.url}" in line


async def test_publish_prints_the_id_of_what_it_published(demo: str, start: Start, tail: Callable[..., Tail]) -> None:
    server = start(demo)
    following = tail(server, CHAT, "--json")
    following.wait_for(following.err, "following")
    for arguments, stdin in (([CHAT, "said", '{"text": "hello"}'], None), ([CHAT, "said", "-"], '{"text": "hello"}\n')):
        done = publish(server, *arguments, stdin=stdin)
        assert (done.returncode, done.stderr) == (0, "")
        following.wait_for(following.out, done.stdout.strip())
    messages = [json.loads(line) for line in following.out]
    assert [(message["payload"], message["meta"]["senderId"]) for message in messages] == [({"text": "hello"}, BOB)] * 2


def test_publish_refuses_what_is_wrong_with_a_line_and_a_status(demo: str, start: Start) -> None:
    server = start(demo)
    assert "JSON" in complaint(publish(server, CHAT, "said", "{text: 1}"), 2)
    assert "object" in complaint(publish(server, CHAT, "said", "[1]"), 2)
    assert "payload.n: nan" in complaint(publish(server, CHAT, "said", '{"n": NaN}'), 2)
    assert "payload.t: half" in complaint(publish(server, CHAT, "said", '{"t": "\\ud800"}'), 2)
    assert "deeply" in complaint(publish(server, CHAT, "said", '{"t":' * 5000 + "1" + "}" * 5000), 2)
    assert "--url" in complaint(publish(server, CHAT, "said", "{}", "--url", "nowhere"), 2)
    assert "(UNAUTHORIZED)" in complaint(publish(server, ORDER, "note", "{}"), 1)
    assert "(UNAUTHORIZED)" in complaint(publish(server, f"order:{ALICES_ORDER}", "note", "{}"), 1)
    assert "(INVALID_REQUEST)" in complaint(publish(server, CHAT, "realtime:mine", "{}"), 1)
    assert "signature" not in complaint(publish(server, CHAT, "said", "{}", "--token", "secret"), 1)


async def test_an_api_key_wins_over_a_token_of_the_environment(demo: str, start: Start) -> None:
    await run_sql(
        demo,
        "CREATE POLICY operators ON realtime.channels FOR SELECT TO project_admin USING (true)",
        "CREATE POLICY operators ON realtime.messages FOR INSERT TO project_admin WITH CHECK (true)",
    )
    done = publish(start(demo), ORDER, "note", "{}", "--api-key", API_KEY)
    assert (done.returncode, done.stderr) == (0, "")
