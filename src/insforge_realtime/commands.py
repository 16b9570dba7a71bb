"""The street up: what a client may ask for, and what that does to the rooms and the database.

    hello(auth)      who are you                → Peer
    subscribe        judged by the policies     → ack, then into the room, then `presence:join` to the others
    unsubscribe                                 → out of the room
    publish          judged by the policies     → a row; it comes back down the other street
    goodbye          from anywhere, at any time → nothing of the peer is left behind

What lives here: the verbs, and the refusals. A peer's commands are handled one after the other (inbox.py). Those left when
it goes find `gone` set and change no room any more; whatever changes a room does so without an await in between. Only what
was to be published is published all the same: most clients ask for no ack, and cannot know that they should wait for one.

What may not: PostgreSQL, tokens, WebSockets. What judges is a Protocol, below; what answers go to is an `Outbound`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from logging import DEBUG, INFO
from typing import Protocol
from uuid import uuid4

import structlog

from insforge_realtime.config import Config
from insforge_realtime.errors import (
    TOKEN_EXPIRED,
    InternalError,
    InvalidRequest,
    NotSubscribed,
    RateLimited,
    RequestError,
    TokenExpired,
)
from insforge_realtime.hub import Sink
from insforge_realtime.inbox import Outbound, Peer, owner_of
from insforge_realtime.metrics import OK, Metrics
from insforge_realtime.model import Identity, Member, Owner, Publication
from insforge_realtime.rates import Buckets
from insforge_realtime.validation import Command, Validator, claimed_channel

RATE_LINE_SECONDS = 1.0
"""How often the log tells, above level debug, of a client that sends too much."""

Verb = tuple[Callable[[Peer, Command], Awaitable[None]], Counter[str]]
"""What to do with a command, and where its result is counted."""

log = structlog.get_logger("insforge_realtime.commands")


class Authenticator(Protocol):
    """Tells who a client is."""

    async def identify(self, auth: object) -> Identity:
        """Return the identity that `auth` proves; raise RequestError where it proves none."""


class Authorizer(Protocol):
    """Tells who may subscribe."""

    async def check_subscribe(self, identity: Identity, channel: str, owner: Owner) -> None:
        """Return if this client may subscribe to this channel; raise RequestError if not."""


class Publisher(Protocol):
    """Tells who may publish, and does it."""

    async def publish(self, publication: Publication, owner: Owner) -> str:
        """Return the message's id once it is committed; raise RequestError where it is not."""


class Rooms(Protocol):
    """Knows who is where."""

    def members(self, channel: str) -> list[Member]:
        """Return everybody in a room, for a snapshot."""

    def enter(self, channel: str, sink: Sink, member: Member, acknowledge: Callable[[], None]) -> None:
        """Put a sink into a room; `acknowledge` is called before it hears anything from there."""

    def leave(self, channel: str, sink: Sink, presence_id: str) -> None:
        """Take it out."""


class Commands:
    """Handles what clients ask for.

    Args:
        config: the limits.
        authenticator, authorizer, publisher: who may come in, who may subscribe, who may publish.
        rooms: who is where.
        published: called after each committed publish, so that the feed looks at once.
        metrics: where commands are counted.
        now: the clock of the rates, in seconds.
    """

    def __init__(
        self,
        config: Config,
        authenticator: Authenticator,
        authorizer: Authorizer,
        publisher: Publisher,
        rooms: Rooms,
        published: Callable[[], None],
        metrics: Metrics,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most_channels = config.max_channels_per_connection
        self._validator = Validator(config)
        self._authenticator = authenticator
        self._authorizer = authorizer
        self._publisher = publisher
        self._rooms = rooms
        self._published = published
        self._now = now
        self._buckets = Buckets(config.max_messages_per_second, config.max_bytes_per_second)
        self._quiet_until = float("-inf")
        """Until then, another refusal because of the rate is not news."""
        self._unknown: Verb = self._refuse_unknown, metrics.unknown_commands
        self._verbs: dict[str | float, Verb] = {
            "realtime:subscribe": (self._subscribe, metrics.subscribes),
            "realtime:unsubscribe": (self._unsubscribe, metrics.unsubscribes),
            "realtime:publish": (self._publish, metrics.publishes),
        }

    async def hello(self, outbound: Outbound, auth: object) -> Peer:
        """Let a peer in, and return it.

        Raises:
            RequestError: its credential failed.
        """
        identity = await self._authenticator.identify(auth)
        sid = uuid4().hex[:20]
        owner = owner_of(identity, outbound.address, sid)
        log.debug("connected", sid=sid, role=identity.role.value)
        return Peer(outbound, identity, sid, owner, self._buckets.of(owner, self._now()))

    def handle(self, peer: Peer, command: Command) -> None:
        """Take one command. Answers go to the peer, now or later, in the order of the commands."""
        if peer.gone:
            return
        over_rate = peer.charge(command.size, self._now())
        if over_rate is None:
            peer.enqueue(command, self._run)
        else:
            self._refuse(peer, command, over_rate)

    def goodbye(self, peer: Peer) -> None:
        """Forget a peer. May be called at any moment, and twice."""
        if peer.gone:
            return
        peer.gone = True
        for channel in peer.channels:
            self._rooms.leave(channel, peer.outbound, peer.presence_id)
        self._buckets.release(peer.owner, self._now())
        log.debug("disconnected", sid=peer.sid)

    def expire(self, peer: Peer) -> None:
        """Close the connection of a peer whose token has expired, so that it reconnects with a fresh one."""
        peer.outbound.emit("realtime:error", TokenExpired().as_dict())
        peer.outbound.close(TOKEN_EXPIRED)
        self.goodbye(peer)

    async def _run(self, peer: Peer, command: Command) -> None:
        verb, results = self._verbs.get(command.name, self._unknown)
        try:
            if command.flaw is not None:
                raise InvalidRequest(command.flaw)
            await verb(peer, command)
        except RequestError as error:
            self._refuse(peer, command, error)
        except Exception:
            log.exception("command failed", command=command.name)
            self._refuse(peer, command, InternalError())
        else:
            results[OK] += 1

    # The verbs

    async def _subscribe(self, peer: Peer, command: Command) -> None:
        channel = self._validator.channel(command)
        if channel not in peer.channels:
            if 0 < self._most_channels <= len(peer.channels):
                raise InvalidRequest(f"A connection may be subscribed to at most {self._most_channels} channels")
            await self._authorizer.check_subscribe(peer.identity, channel, peer.owner)
        if peer.gone:
            peer.channels[channel] = None  # for a publish that is behind it in the inbox
        else:
            self._enter(peer, channel, command.ack_id)

    def _enter(self, peer: Peer, channel: str, ack_id: int | None) -> None:
        def acknowledge() -> None:
            if ack_id is not None:
                members = [present.json for present in self._rooms.members(channel)]
                answer = {"ok": True, "channel": channel, "presence": {"members": members}}
                peer.outbound.acknowledge(ack_id, answer)

        if channel in peer.channels:
            acknowledge()
        else:
            peer.channels[channel] = None
            self._rooms.enter(channel, peer.outbound, peer.as_member(), acknowledge)

    async def _unsubscribe(self, peer: Peer, command: Command) -> None:
        channel = self._validator.channel(command)
        if channel in peer.channels:
            del peer.channels[channel]
            if not peer.gone:
                self._rooms.leave(channel, peer.outbound, peer.presence_id)
        if command.ack_id is not None and not peer.gone:
            peer.outbound.acknowledge(command.ack_id, {"ok": True, "channel": channel})

    async def _publish(self, peer: Peer, command: Command) -> None:
        channel, event, payload = self._validator.publication(command)
        if channel not in peer.channels:
            raise NotSubscribed
        message_id = await self._publisher.publish(Publication(peer.identity, channel, event, payload), peer.owner)
        self._published()
        if command.ack_id is not None and not peer.gone:
            peer.outbound.acknowledge(command.ack_id, {"ok": True, "messageId": message_id})

    async def _refuse_unknown(self, peer: Peer, command: Command) -> None:
        raise InvalidRequest(f"Unknown event {str(command.name)[:80]!r}")

    # The refusals

    def _refuse(self, peer: Peer, command: Command, error: RequestError) -> None:
        """Answer with an error: in the ack if the client waits for one, else as `realtime:error`."""
        _, results = self._verbs.get(command.name, self._unknown)
        results[error.code] += 1
        if peer.gone:
            return
        channel = claimed_channel(command)
        self._log_refusal(peer, str(command.name)[:80], channel, error)
        about = {} if channel is None else {"channel": channel}
        if command.ack_id is None:
            peer.outbound.emit("realtime:error", {**about, **error.as_dict()})
        else:
            peer.outbound.acknowledge(command.ack_id, {"ok": False, **about, "error": error.as_dict()})

    def _log_refusal(self, peer: Peer, named: str, channel: str | None, error: RequestError) -> None:
        """Log what only the operator may know: to the client, a channel that does not exist looks like another's."""
        level = self._rate_level() if isinstance(error, RateLimited) else INFO
        sub = peer.identity.subject or "anonymous"
        log.log(level, "refused", command=named, sub=sub, channel=channel, sid=peer.sid, **error.for_the_log())

    def _rate_level(self) -> int:
        """Return the level at which to log that a client sends too much: it must not fill the log as well."""
        now = self._now()
        if now < self._quiet_until:
            return DEBUG
        self._quiet_until = now + RATE_LINE_SECONDS
        return INFO
