"""The street up: what a client may ask for, and what that does to the hub, the presence and the database.

    hello(auth)      who are you                → Identity
    subscribe        judged by the policies     → ack, then into the room, then `presence:join` to the others
    unsubscribe                                 → out of the room
    publish          judged by the policies     → a row; it comes back down the other street
    goodbye          from anywhere, at any time → nothing of the peer is left behind

The commands of one client are handled one after the other, in the order in which they came: a task runs while its inbox
has something in it, and none does while it is empty. What is left in it when the client leaves finds `gone` set, and changes
no room any more; everything that changes the hub happens without an await in between. Only what was to be published is
published all the same: most clients ask for no ack, and cannot know that they should wait for one.

Nothing here knows what a WebSocket is: a `Connection` is a handful of verbs.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable
from logging import DEBUG, INFO
from typing import Protocol
from uuid import uuid4

import structlog

from insforge_realtime import tasks
from insforge_realtime.auth import Authenticator
from insforge_realtime.clock import iso_now
from insforge_realtime.config import Config
from insforge_realtime.errors import (
    TOKEN_EXPIRED,
    Close,
    InternalError,
    InvalidRequest,
    NotSubscribed,
    RateLimited,
    RequestError,
    TokenExpired,
)
from insforge_realtime.hub import Sink
from insforge_realtime.model import Identity, Member, Owner, Publication, Role
from insforge_realtime.pg.authorizer import Authorizer
from insforge_realtime.pg.publishers import ClientPublisher
from insforge_realtime.rates import Bucket, Buckets, place_of
from insforge_realtime.rooms import Rooms
from insforge_realtime.validation import Command, Validator, claimed_channel

RATE_LINE_SECONDS = 1.0
"""How often the log says, above level debug, that somebody sends too much."""
INBOX_HIGH, INBOX_LOW = 64, 16
"""The commands waiting at which a connection's reading is stopped, and begun again."""

ANONYMOUS_SHARE = 10
"""How many people the anonymous clients of one address may be."""

log = structlog.get_logger("insforge_realtime.commands")


class Connection(Sink, Protocol):
    """What the commands need of a connection."""

    @property
    def address(self) -> str:
        """The client's."""

    def emit(self, name: str, data: object) -> None:
        """Send one event to this client alone."""

    def acknowledge(self, ack_id: int, data: object) -> None:
        """Send the answer that a client waits for."""

    def close(self, end: Close) -> None:
        """End the transport in a way that makes the client come back."""

    def pause_reading(self) -> None:
        """Stop reading."""

    def resume_reading(self) -> None:
        """Go on reading."""


class Peer:
    """One connected peer: who it is, where it is, and what it still waits for."""

    __slots__ = (
        "bucket",
        "busy",
        "channels",
        "connection",
        "gone",
        "identity",
        "inbox",
        "owner",
        "paused",
        "sid",
    )

    def __init__(self, connection: Connection, identity: Identity, sid: str, owner: Owner, bucket: Bucket) -> None:
        self.connection = connection
        self.identity = identity
        self.sid = sid
        self.owner = owner
        self.bucket = bucket
        self.channels: dict[str, None] = {}
        self.inbox: deque[Command] | None = None
        self.busy = self.paused = self.gone = False

    @property
    def presence_id(self) -> str:
        return self.sid if self.is_anonymous else str(self.identity.subject)

    @property
    def is_anonymous(self) -> bool:
        return self.identity.subject is None or self.identity.role is Role.ANON

    def as_member(self) -> Member:
        return Member("anonymous" if self.is_anonymous else "user", self.presence_id, iso_now())


class Commands:
    """Handles what clients ask for.

    Args:
        config: the limits.
        authenticator, authorizer, store: who may come in, who may subscribe, who may publish.
        rooms: who is where.
        published: called after each committed publish, so that the feed looks at once.
    """

    def __init__(
        self,
        config: Config,
        authenticator: Authenticator,
        authorizer: Authorizer,
        store: ClientPublisher,
        rooms: Rooms,
        published: Callable[[], None],
    ) -> None:
        self._config = config
        self._validator = Validator(config)
        self._authenticator = authenticator
        self._authorizer = authorizer
        self._store = store
        self._rooms = rooms
        self._published = published
        self._buckets = Buckets(config.max_messages_per_second, config.max_bytes_per_second)
        self._quiet_until = 0.0
        """Until then, another refusal because of the rate is no news."""
        self._verbs: dict[str | float, Callable[[Peer, Command], Awaitable[None]]] = {
            "realtime:subscribe": self._subscribe,
            "realtime:unsubscribe": self._unsubscribe,
            "realtime:publish": self._publish,
        }

    async def hello(self, connection: Connection, auth: object) -> Peer:
        """Let a peer in.

        Raises:
            RequestError: its credential failed.
        """
        identity = await self._authenticator.identify(auth)
        sid = uuid4().hex[:20]
        owner = _owner(identity, connection.address, sid)
        peer = Peer(connection, identity, sid, owner, self._buckets.of(owner, time.monotonic()))
        log.debug("connected", sid=peer.sid, role=identity.role.value)
        return peer

    def handle(self, peer: Peer, command: Command) -> None:
        """Take one command. Answers go to the connection, now or later, in the order of the commands."""
        if peer.gone:
            return
        over = self._over_rate(peer, command.size)
        if over is not None:
            self._refuse(peer, command, over)
            return
        if peer.inbox is None:
            peer.inbox = deque()
        peer.inbox.append(command)
        if not peer.busy:
            peer.busy = True
            tasks.start(self._work(peer), "commands of a client")
        elif len(peer.inbox) >= INBOX_HIGH and not peer.paused:
            peer.paused = True
            peer.connection.pause_reading()

    def goodbye(self, peer: Peer) -> None:
        """Forget a peer. May be called at any moment, and twice."""
        if peer.gone:
            return
        peer.gone = True
        for channel in peer.channels:
            self._rooms.leave(channel, peer.connection, peer.presence_id)
        self._buckets.release(peer.owner, time.monotonic())
        log.debug("disconnected", sid=peer.sid)

    def expire(self, peer: Peer) -> None:
        """End a client whose token has expired, so that it comes back with a fresh one."""
        peer.connection.emit("realtime:error", TokenExpired().as_dict())
        peer.connection.close(TOKEN_EXPIRED)
        self.goodbye(peer)

    async def _work(self, peer: Peer) -> None:
        """Handle the inbox until it is empty."""
        while peer.inbox:
            await self._run(peer, peer.inbox.popleft())
            if peer.paused and not peer.gone and len(peer.inbox or ()) <= INBOX_LOW:
                peer.paused = False
                peer.connection.resume_reading()
        peer.busy = False
        peer.inbox = None

    async def _run(self, peer: Peer, command: Command) -> None:
        try:
            if command.flaw is not None:
                raise InvalidRequest(command.flaw)
            verb = self._verbs.get(command.name)
            if verb is None:
                raise InvalidRequest(f"Unknown event {str(command.name)[:80]!r}")
            await verb(peer, command)
        except RequestError as error:
            self._refuse(peer, command, error)
        except Exception:
            log.exception("command failed", command=command.name)
            self._refuse(peer, command, InternalError())

    def _refuse(self, peer: Peer, command: Command, error: RequestError) -> None:
        """Say no: in the ack where one is asked for, else as `realtime:error`."""
        if peer.gone:
            return
        channel = claimed_channel(command)
        self._log_refusal(peer, str(command.name)[:80], channel, error)
        about = {} if channel is None else {"channel": channel}
        if command.ack_id is None:
            peer.connection.emit("realtime:error", {**about, **error.as_dict()})
        else:
            peer.connection.acknowledge(command.ack_id, {"ok": False, **about, "error": error.as_dict()})

    def _log_refusal(self, peer: Peer, named: str, channel: str | None, error: RequestError) -> None:
        """With what only the operator may know: the client cannot tell a channel that does not exist from another's."""
        level = INFO
        if isinstance(error, RateLimited):  # who sends too much must not fill the log as well
            now = time.monotonic()
            if now < self._quiet_until:
                level = DEBUG
            else:
                self._quiet_until = now + RATE_LINE_SECONDS
        who = peer.identity.subject or "anonymous"
        log.log(level, "refused", command=named, sub=who, channel=channel, sid=peer.sid, **error.for_the_log())

    # The three verbs.

    async def _subscribe(self, peer: Peer, command: Command) -> None:
        channel = self._validator.channel(command)
        limit = self._config.max_channels_per_connection
        if channel not in peer.channels:
            if limit and len(peer.channels) >= limit:
                raise InvalidRequest(f"A connection may be subscribed to at most {limit} channels")
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
                peer.connection.acknowledge(ack_id, answer)

        if channel in peer.channels:
            acknowledge()
        else:
            peer.channels[channel] = None
            self._rooms.enter(channel, peer.connection, peer.as_member(), acknowledge)

    async def _unsubscribe(self, peer: Peer, command: Command) -> None:
        channel = self._validator.channel(command)
        if channel in peer.channels:
            del peer.channels[channel]
            if not peer.gone:
                self._rooms.leave(channel, peer.connection, peer.presence_id)
        if command.ack_id is not None and not peer.gone:
            peer.connection.acknowledge(command.ack_id, {"ok": True, "channel": channel})

    async def _publish(self, peer: Peer, command: Command) -> None:
        channel, event, payload = self._validator.publication(command)
        if channel not in peer.channels:
            raise NotSubscribed
        message_id = await self._store.publish(Publication(peer.identity, channel, event, payload), peer.owner)
        self._published()
        if command.ack_id is not None and not peer.gone:
            peer.connection.acknowledge(command.ack_id, {"ok": True, "messageId": message_id})

    def _over_rate(self, peer: Peer, size: int) -> RateLimited | None:
        """Take a message of `size` bytes out of its owner's bucket; or say that there is too little in it."""
        short = peer.bucket.take(size, time.monotonic())
        if short == "bytes":
            most = self._config.max_bytes_per_second * peer.owner.share
            return RateLimited(f"More than {most} bytes a second; slow down")
        return None if short is None else RateLimited()


def _owner(identity: Identity, address: str, sid: str) -> Owner:
    """Whose account a client's requests go to. A project's key is on servers, each connection of which is for itself."""
    if identity.subject is not None:
        return Owner(f"user {identity.subject}")
    place = place_of(address)
    if identity.role is Role.PROJECT_ADMIN or place is None:
        return Owner(f"socket {sid}")
    return Owner(f"address {place}", ANONYMOUS_SHARE)
