"""What is in the schema realtime, and around it: policies, channels, webhooks, messages, and whose auth.uid() there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from insforge_realtime.pg.check.finding import Finding, Question, by_query
from insforge_realtime.pg.probes import probe_auth_uid

if TYPE_CHECKING:
    from insforge_realtime.config import Config
    from insforge_realtime.pg.database import Connection


async def _identity(connection: Connection, _: Config) -> list[Finding]:
    """An auth.uid() of another server's may not know every kind of token. It is not ours to replace."""
    wrong = await probe_auth_uid(connection)
    if wrong is None:
        return [Finding("ok", "auth.uid() knows every kind of token")]
    what, _comma, advice = " ".join(wrong.split()).rpartition("; ")
    return [Finding("warning", what, advice)]


QUESTIONS = (
    Question("could not find out whether auth.uid() knows every kind of token", _identity),
    by_query("examine_rls", "row-level security is on for both tables"),
    by_query("examine_policies", "there are policies by which clients may subscribe and publish"),
    by_query("examine_admin_policy", "the API key's role is let in by project_admin_policy"),
    by_query("examine_channels", "at least one channel is enabled"),
    by_query("examine_patterns", "all channel patterns can be read"),
    by_query("examine_webhooks", "webhooks can be queued, and their URLs can be read"),
    by_query("examine_immutable", "no function that policies call is wrongly IMMUTABLE"),
    by_query("examine_future", "no row comes from another cluster's future"),
    by_query("examine_undeliverable", "every message of the last day could be delivered"),
    by_query("examine_subscriptions", "no subscription writes to realtime.messages"),
    by_query("examine_two_phase", "the feed may be rung"),
    by_query("examine_notifiers", "no other server's trigger notifies for every row"),
)
