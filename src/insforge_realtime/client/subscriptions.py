"""What becomes of each channel: the states of a subscription, and who is there.

A channel is in one of four states. ABSENT is not to be in the book at all.

    ABSENT    nobody wants it
    PENDING   wanted, and not confirmed on any connection yet
    JOINED    confirmed on this connection
    RENEWING  confirmed on an earlier connection, and to be confirmed again

                                 PENDING                     JOINED                   RENEWING
    subscribe()                  waits for the same answer   answered at once         waits for the answer
    the connection opens         requests it                 -                        requests it
    the connection ends          stays, for the next         → RENEWING               stays, for the next
    the server sends us away     → ABSENT; answers           → RENEWING, for the next stays; the same
                                 DISCONNECTED                connect(); streams fail
    ack: ok                      → JOINED; answers ok        -                        → JOINED; snapshot replaces presence
                                 event `realtime:subscribed`                          event `realtime:subscribed`
    no ack in time               sends again; the first      -                        the same
                                 answer counts
    ack: UNAVAILABLE,            sends again after back-off  -                        sends again after back-off
      RATE_LIMITED
    ack: TOKEN_EXPIRED           stays; the client takes a fresh token and connects anew, at once
    ack: any other refusal       → ABSENT; answers it        -                        → ABSENT; event `error`, streams fail
    subscribe() waited too long  → ABSENT; answers why       -                        stays; answers why
    nobody holds it any more     → ABSENT; tells the server, where there is a connection
    unsubscribe()                → ABSENT; the same, answers SUBSCRIPTION_CANCELLED, streams end
    disconnect()                 → ABSENT; answers DISCONNECTED, streams end
    connect() failed             → ABSENT; answers why,      -                        stays, for the next connect();
                                 streams fail                                         streams fail

Before `realtime:subscribed` no message of the channel is delivered. A subscription is held by subscribe() (until
unsubscribe()), by each open stream, and by each call that waits.
Answers, snapshots and events are handled in the order in which they came, without a pause in which another could slip in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from insforge_realtime.client.backoff import Backoff
from insforge_realtime.client.errors import LATER, ClientError, SubscribeError
from insforge_realtime.client.link import Link
from insforge_realtime.client.listeners import Listener
from insforge_realtime.client.message_buffer import MessageBuffer
from insforge_realtime.client.types import ErrorInfo, Member, Message, Subscribed, SubscribeResponse


class Subscription:
    """A channel that is in the book."""

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.joined = False
        """JOINED; else PENDING or RENEWING."""
        self.renewing = False
        self.kept = False
        """subscribe() holds it."""
        self.told: list[Listener] = []
        """What subscribe() was given to call at confirmations."""
        self.buffers: dict[MessageBuffer, Listener | None] = {}
        """The streams' buffers, and what each calls at confirmations."""
        self.waiting = 0
        """Calls that wait for the answer."""
        self.answer: asyncio.Future[SubscribeResponse] = asyncio.get_running_loop().create_future()
        self.members: dict[str, Member] = {}
        self.request = 0
        """The number of the request under way; acks of earlier ones are ignored. Sent again, it keeps its number."""
        self.timer: asyncio.TimerHandle | None = None
        self.last_error: ErrorInfo | None = None
        self.failures = 0

    @property
    def is_held(self) -> bool:
        return self.kept or bool(self.buffers) or self.waiting > 0

    def all_told(self) -> list[Listener]:
        """Return all that is called at a confirmation."""
        return [*self.told, *(listener for listener in self.buffers.values() if listener is not None)]

    def cancel_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def unsettle(self) -> None:
        """Expect another answer."""
        self.answer = asyncio.get_running_loop().create_future()

    def settle(self, response: SubscribeResponse) -> None:
        if not self.answer.done():
            self.answer.set_result(response)

    def yes(self) -> SubscribeResponse:
        return SubscribeResponse(True, self.channel, members=list(self.members.values()))

    def no(self, code: str, message: str) -> SubscribeResponse:
        return SubscribeResponse(False, self.channel, ErrorInfo(code, message, self.channel))


@dataclass(frozen=True, slots=True)
class Notices:
    """What to call when.

    Args:
        joined: a channel is confirmed, and what to call besides the event's listeners.
        heard: one listener alone has come to a confirmed channel.
        refused: a renewal was refused.
        expired: the token has expired.
        why: returns why there is no connection.
    """

    joined: Callable[[Subscribed, list[Listener]], None]
    heard: Callable[[Subscribed, Listener], None]
    refused: Callable[[ErrorInfo], None]
    expired: Callable[[], None]
    why: Callable[[], ClientError]


class Subscriptions:
    """The book of one client.

    Args:
        seconds: how long to wait for an ack, and for the answer to a subscribe.
        backoff: the waits between two requests.
        notices: what to call.
    """

    def __init__(self, seconds: float, backoff: Backoff, notices: Notices) -> None:
        self._seconds = seconds
        self._backoff = backoff
        self._notices = notices
        self._book: dict[str, Subscription] = {}
        self._link: Link | None = None

    def joined(self) -> list[str]:
        """Return the channels that are confirmed on this connection."""
        return [channel for channel, subscription in self._book.items() if subscription.joined]

    def members(self, channel: str) -> list[Member]:
        """Return who is in a channel, as far as we know."""
        subscription = self._book.get(channel)
        return list(subscription.members.values()) if subscription else []

    # What the user wants.

    async def subscribe(self, channel: str, told: Listener | None = None) -> SubscribeResponse:
        """Want a channel until `leave`, and return the answer; `told` is called at each confirmation until then."""
        subscription = self._find(channel)
        if told is not None and any(told.handler == other.handler for other in subscription.told):
            told = None
        if told is not None:
            subscription.told.append(told)
            self._tell_at_once(subscription, told)
        ok = False
        try:
            response = await self._wait(subscription)
            ok = response.ok
        finally:
            if told is not None and not ok:
                told.active = False
                subscription.told.remove(told)
        subscription.kept = subscription.kept or ok
        return response

    async def follow(self, buffer: MessageBuffer, told: Listener | None = None) -> None:
        """Want a channel for a buffer, until `unfollow`; `told` is called at each confirmation until then.

        Raises:
            SubscribeError: it was refused.
        """
        subscription = self._find(buffer.channel)
        subscription.buffers[buffer] = told
        if told is not None:
            self._tell_at_once(subscription, told)
        try:
            response = await self._wait(subscription)
        except BaseException:
            self.unfollow(buffer)
            raise
        if response.error is not None:
            self.unfollow(buffer)
            raise SubscribeError(response.error.code, f"{buffer.channel}: {response.error.message}")

    def unfollow(self, buffer: MessageBuffer) -> None:
        """End a buffer that is not read any more."""
        buffer.end()
        subscription = self._book.get(buffer.channel)
        if subscription is not None:
            told = subscription.buffers.pop(buffer, None)
            if told is not None:
                told.active = False
            self._release(subscription)

    def leave(self, channel: str) -> None:
        """Leave a channel, whoever holds it: unsubscribe()."""
        subscription = self._book.get(channel)
        if subscription is not None:
            self._tell_goodbye(channel)
            self._remove(subscription, subscription.no("SUBSCRIPTION_CANCELLED", "Unsubscribed"))

    def clear(self) -> None:
        """Forget every channel: disconnect()."""
        for subscription in tuple(self._book.values()):
            self._remove(subscription, subscription.no("DISCONNECTED", "Disconnected"))

    def forget(self) -> None:
        """Forget every channel silently: the event loop of those waiting is no more."""
        for subscription in self._book.values():
            subscription.cancel_timer()
        self._book.clear()
        self._link = None

    # What the connection brings.

    def connection_opened(self, link: Link) -> None:
        """Request everything that is wanted."""
        self._link = link
        for subscription in self._book.values():
            self._request(subscription)

    def connection_ended(self) -> None:
        """Take every confirmation for void."""
        self._link = None
        for subscription in self._book.values():
            subscription.cancel_timer()
            subscription.request += 1
            if subscription.joined:
                subscription.joined = False
                subscription.renewing = True
                subscription.unsettle()

    def given_up(self, error: ClientError) -> None:
        """Answer everyone: there will be no connection until somebody opens one, and why."""
        for subscription in tuple(self._book.values()):
            no = subscription.no(error.code, error.message)
            failure = SubscribeError(error.code, f"{subscription.channel}: {error.message}")
            if subscription.renewing and subscription.kept:
                self._end(subscription, no, failure)
                subscription.unsettle()
            else:
                self._remove(subscription, no, failure)

    def received(self, event: str, data: Any) -> bool:
        """Keep presence and fill the streams' buffers. Return False for a channel that was left: nobody hears it."""
        meta = data.get("meta") if isinstance(data, dict) else None
        channel = meta.get("channel") if isinstance(meta, dict) else None
        if not isinstance(channel, str):
            return True
        subscription = self._book.get(channel)
        if subscription is None:
            return False
        member = data.get("member")
        if isinstance(member, dict) and event == "presence:join":
            subscription.members[str(member.get("presenceId"))] = member  # type: ignore[assignment]
        elif isinstance(member, dict) and event == "presence:leave":
            subscription.members.pop(str(member.get("presenceId")), None)
        for buffer in tuple(subscription.buffers):
            buffer.put(Message(event, data))
        return True

    # The moves between the states.

    def _find(self, channel: str) -> Subscription:
        """Return the channel's entry; a new one is requested at once, where there is a connection."""
        subscription = self._book.get(channel)
        if subscription is None:
            subscription = self._book[channel] = Subscription(channel)
            self._request(subscription)
        return subscription

    async def _wait(self, subscription: Subscription) -> SubscribeResponse:
        """Return the answer. A cancelled call leaves nothing behind that nobody else holds."""
        if subscription.joined:
            return subscription.yes()
        subscription.waiting += 1
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.shield(subscription.answer)
        except TimeoutError:
            late = subscription.last_error or ErrorInfo("SUBSCRIBE_TIMEOUT", "No answer from the server in time")
            error = late if self._link is not None else self._notices.why()
            return subscription.no(error.code, error.message)
        finally:
            # In the next turn: by then whoever waited may hold it.
            asyncio.get_running_loop().call_soon(self._waited, subscription)

    def _waited(self, subscription: Subscription) -> None:
        subscription.waiting -= 1
        self._release(subscription)

    def _release(self, subscription: Subscription) -> None:
        if not subscription.is_held and self._book.get(subscription.channel) is subscription:
            self.leave(subscription.channel)

    def _request(self, subscription: Subscription) -> None:
        if self._link is None:
            return
        number = subscription.request
        subscription.cancel_timer()
        subscription.timer = asyncio.get_running_loop().call_later(self._seconds, self._request, subscription)
        self._link.send(
            "realtime:subscribe",
            {"channel": subscription.channel},
            lambda answer: self._answered(subscription, number, answer),
        )

    def _answered(self, subscription: Subscription, number: int, answer: dict[str, Any] | None) -> None:
        if answer is None or number != subscription.request or self._book.get(subscription.channel) is not subscription:
            return
        subscription.request += 1
        subscription.cancel_timer()
        if answer.get("ok"):
            self._join(subscription, answer)
            return
        error = answer.get("error") or {}
        code, message = str(error.get("code", "INTERNAL_ERROR")), str(error.get("message", "Refused"))
        if code == "TOKEN_EXPIRED":
            self._notices.expired()
        elif code in LATER:
            subscription.last_error = ErrorInfo(code, message, subscription.channel)
            delay = self._backoff.after(subscription.failures)
            subscription.failures += 1
            subscription.timer = asyncio.get_running_loop().call_later(delay, self._request, subscription)
        else:
            self._refuse(subscription, subscription.no(code, message))

    def _join(self, subscription: Subscription, answer: dict[str, Any]) -> None:
        news = Subscribed(subscription.channel, subscription.renewing)
        members = (answer.get("presence") or {}).get("members") or []
        subscription.members = {member["presenceId"]: member for member in members}
        subscription.joined = True
        subscription.renewing = False
        subscription.last_error = None
        subscription.failures = 0
        subscription.settle(subscription.yes())
        self._notices.joined(news, subscription.all_told())

    def _tell_at_once(self, subscription: Subscription, told: Listener) -> None:
        if subscription.joined:
            self._notices.heard(Subscribed(subscription.channel, renewed=False), told)

    def _refuse(self, subscription: Subscription, response: SubscribeResponse) -> None:
        assert response.error is not None
        error = SubscribeError(response.error.code, f"{subscription.channel}: {response.error.message}")
        self._remove(subscription, response, error)
        if subscription.renewing:
            self._notices.refused(response.error)

    def _remove(
        self, subscription: Subscription, response: SubscribeResponse, error: ClientError | None = None
    ) -> None:
        del self._book[subscription.channel]
        subscription.cancel_timer()
        subscription.joined = False
        for told in subscription.all_told():
            told.active = False
        self._end(subscription, response, error)

    @staticmethod
    def _end(subscription: Subscription, response: SubscribeResponse, error: ClientError | None) -> None:
        """Answer whoever waits, and end the streams."""
        subscription.settle(response)
        for buffer in subscription.buffers:
            buffer.end(error)

    def _tell_goodbye(self, channel: str) -> None:
        if self._link is not None:
            self._link.send("realtime:unsubscribe", {"channel": channel})
