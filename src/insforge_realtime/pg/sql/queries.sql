-- Every statement that the server runs, by name, each with one sentence on what it does.
-- Parameters are PostgreSQL's own ($1, $2 …); pg/queries.py makes `QUERIES.name` of each.

-- name: now_snapshot
-- The snapshot that a feed without a past begins from.
SELECT pg_current_snapshot()::text;

-- name: heal_future_xids
-- After a restore into a new cluster, old rows can carry transaction ids that are still to come here: call those delivered.
UPDATE realtime.messages SET xid = '0' WHERE xid >= pg_snapshot_xmax(pg_current_snapshot());

-- name: plan_looks_by_index
-- For the session of the feed: a look is planned once, for any snapshot, and always by index: estimates for an unknown snapshot
-- are useless.
SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off;

-- name: look
-- The first page of what became visible since snapshot $1 (at most $2 rows and about $3 bytes), and the snapshot it was seen in.
-- `+ 0`, or the planner would walk the index on seq, which gives the order for free, through the whole table.
SELECT pg_current_snapshot()::text AS snapshot, count(*) AS found, bool_or((p.message).wh_audience_count > 0) AS webhooks,
       coalesce(array_agg(p.seq) FILTER (WHERE p.before < $3), '{}') AS seqs,
       coalesce(array_agg(p.channel_name) FILTER (WHERE p.before < $3), '{}') AS channels,
       coalesce(array_agg(realtime.event_text(p.message)) FILTER (WHERE p.before < $3), '{}') AS events
FROM (
    SELECT w.*, sum(b.bytes) OVER (ORDER BY w.seq) - b.bytes AS before
    FROM (
        SELECT m AS message, m.seq, m.channel_name FROM realtime.messages m
        WHERE m.xid >= pg_snapshot_xmax($1::text::pg_snapshot)
           OR m.xid = ANY (ARRAY (SELECT pg_snapshot_xip($1::text::pg_snapshot)))
        ORDER BY m.seq + 0 LIMIT $2
    ) w, LATERAL (SELECT CASE WHEN pg_column_compression((w.message).payload) IS NULL THEN pg_column_size((w.message).payload)
                         ELSE octet_length((w.message).payload::text) END AS bytes OFFSET 0) b
) p;

-- name: look_on
-- The next page of the same window: after row $4, and only what was visible in the snapshot $5 that ends it. By seq: no index
-- serves these conditions on xid, and so no page reads the whole window again.
SELECT $5::text AS snapshot, count(*) AS found, bool_or((p.message).wh_audience_count > 0) AS webhooks,
       coalesce(array_agg(p.seq) FILTER (WHERE p.before < $3), '{}') AS seqs,
       coalesce(array_agg(p.channel_name) FILTER (WHERE p.before < $3), '{}') AS channels,
       coalesce(array_agg(realtime.event_text(p.message)) FILTER (WHERE p.before < $3), '{}') AS events
FROM (
    SELECT w.*, sum(b.bytes) OVER (ORDER BY w.seq) - b.bytes AS before
    FROM (
        SELECT m AS message, m.seq, m.channel_name FROM realtime.messages m
        WHERE m.seq > $4
          AND NOT pg_visible_in_snapshot(m.xid, $1::text::pg_snapshot)
          AND pg_visible_in_snapshot(m.xid, $5::text::pg_snapshot)
        ORDER BY m.seq LIMIT $2
    ) w, LATERAL (SELECT CASE WHEN pg_column_compression((w.message).payload) IS NULL THEN pg_column_size((w.message).payload)
                         ELSE octet_length((w.message).payload::text) END AS bytes OFFSET 0) b
) p;

-- name: take_ticket
-- Say that this feed is about to sleep; the ticket counts only if it is greater than `rung`.
SELECT nextval('realtime.asleep') AS ticket, coalesce(pg_sequence_last_value('realtime.rung'::regclass), 0) AS rung;

-- name: barrier
-- A transaction id of our own: once every snapshot is past it, no writer is left that may have missed the ticket.
SELECT pg_current_xact_id()::text::bigint;

-- name: is_rung
-- Whether ticket $1 has been called.
SELECT $1::bigint <= coalesce(pg_sequence_last_value('realtime.rung'::regclass), 0);

-- name: call
-- Wake all feeds whose ticket is not greater than ring number $1 (a forged one counts no further than `asleep`); gives the number,
-- unless all of them are awake.
WITH ring AS MATERIALIZED (SELECT least($1::bigint, pg_sequence_last_value('realtime.asleep'::regclass)) AS number)
SELECT number, pg_notify('realtime', 'awake ' || number) FROM ring
WHERE number > coalesce(pg_sequence_last_value('realtime.rung'::regclass), 0);

-- name: answer_ring
-- All feeds whose ticket is not greater than $1 have been called, so nobody need ring for them.
SELECT setval('realtime.rung', $1::bigint) WHERE $1::bigint > coalesce(pg_sequence_last_value('realtime.rung'::regclass), 0);

-- name: check_subscribe
-- Judge many subscribe requests under row-level security in one round trip.
SELECT realtime.check_subscribe($1::text[], $2::text[], $3::text[]);

-- name: publish_as
-- Insert many clients' messages, each under the INSERT policies of its own role.
SELECT realtime.publish_as($1::text[], $2::text[], $3::text[], $4::text[], $5::text[]);

-- name: publish_lists
-- Publish lists of messages as the system, each as a whole or not at all.
SELECT realtime.publish_lists($1::int[], $2::text[], $3::text[], $4::text[]);

-- name: plan_counts_by_index
-- For the session of the counters: thousands of rows of a large table, each found by its seq, whatever the statistics say.
SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;

-- name: count_audience
-- Add to the WebSocket audience of many messages at once: $1 their seq, $2 how many sockets each was sent to.
UPDATE realtime.messages m SET ws_audience_count = m.ws_audience_count + d.audience
FROM unnest($1::bigint[], $2::int[]) AS d (seq, audience) WHERE m.seq = d.seq;

-- name: migrations_applied
-- The versions that this database has had.
SELECT version FROM realtime.schema_migrations ORDER BY version;

-- name: create_schema_migrations
-- The book of what was applied.
CREATE TABLE IF NOT EXISTS realtime.schema_migrations (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- name: record_migration
-- Note that a migration was applied.
INSERT INTO realtime.schema_migrations (version, name) VALUES ($1, $2);

-- name: tables_without_rls
-- Which of our tables anybody with a grant may use, because row-level security is off.
SELECT c.oid::regclass::text AS name FROM pg_class c
WHERE c.oid IN (to_regclass('realtime.channels'), to_regclass('realtime.messages')) AND NOT c.relrowsecurity
ORDER BY 1;

-- name: change_some_order
-- The demo's traffic: move one of the demo's orders on to its next status.
UPDATE orders SET status = CASE status
    WHEN 'new' THEN 'paid' WHEN 'paid' THEN 'shipped' WHEN 'shipped' THEN 'delivered' ELSE 'new' END
WHERE id = (SELECT id FROM orders WHERE id::text LIKE '0de40000-%' ORDER BY id OFFSET $1::int % 3 LIMIT 1);

-- name: migrator
-- Whom a refused migration asks grants for, and where, quoted.
SELECT quote_ident(current_user) AS user, quote_ident(current_database()) AS database;

-- name: probe_claims
-- Be somebody with the claims $1, until the end of the transaction.
SELECT set_config('request.jwt.claims', $1, true);

-- name: probe_uid
-- Who auth.uid() says asks, as the uuid that a message's sender_id is.
SELECT auth.uid()::text::uuid::text;
