-- Every statement that the server runs, by name, each with one sentence on what it does.
-- Names are qualified where others' code may run (triggers, policies), which needs the session's search_path; see functions.sql.
-- Parameters are PostgreSQL's own ($1, $2 and so on); pg/queries.py makes `QUERIES.name` of each.

-- name: path_of_our_own
-- For the rest of the transaction, no name means what somebody else has made of it.
SET LOCAL search_path = pg_catalog, pg_temp;

-- name: arrays_that_we_send
-- The types of parameters that asyncpg has to ask the catalog about (see pg/database.py).
SELECT NULL::bigint[] AS a, NULL::int[] AS b, NULL::float8[] AS c;

-- name: settle_session
-- What holds in a session whatever the defaults of the role and the database are: no limit but ours ($1 for statements, $2 for
-- locks, in ms), and what would change the meaning of a statement as PostgreSQL has it. (SET takes no parameters: put in as text.)
SET SESSION statement_timeout = $1; SET SESSION lock_timeout = $2; SET SESSION idle_session_timeout = 0;
SET SESSION idle_in_transaction_session_timeout = '60s'; SET SESSION jit = off; SET SESSION client_min_messages = warning;
SET SESSION standard_conforming_strings = on; SET SESSION row_security = on;
SET SESSION default_transaction_isolation = 'read committed'; SET SESSION default_transaction_deferrable = off;
SET SESSION tcp_keepalives_idle = 30; SET SESSION tcp_keepalives_interval = 10; SET SESSION tcp_keepalives_count = 3;

-- name: settle_session_17
-- The same, what came with PostgreSQL 17.
SET SESSION transaction_timeout = 0;

-- name: settle_writing
-- Let a session write whose role begins read-only.
SET SESSION default_transaction_read_only = off;

-- name: begin
-- Begin a transaction through a pooler, whatever kind the role begins with.
BEGIN ISOLATION LEVEL READ COMMITTED;

-- name: settle_transaction
-- As settle_session, for one transaction: behind a pooler a session's settings would be somebody else's next.
SET LOCAL statement_timeout = $1; SET LOCAL lock_timeout = $2; SET LOCAL idle_in_transaction_session_timeout = '60s';
SET LOCAL jit = off; SET LOCAL client_min_messages = warning; SET LOCAL standard_conforming_strings = on;
SET LOCAL row_security = on;

-- name: settle_transaction_17
-- The same, what came with PostgreSQL 17.
SET LOCAL transaction_timeout = 0;

-- name: set_one
-- Set $1 to $2, for the transaction only if $3.
SELECT pg_catalog.set_config($1, $2, $3);

-- name: session_standing
-- Whether this server is a standby; and whether sessions begin read-only, and who says so.
SELECT pg_catalog.pg_is_in_recovery() AS standby, pg_catalog.current_setting('default_transaction_read_only') AS read_only,
       (SELECT source FROM pg_catalog.pg_settings WHERE name OPERATOR(pg_catalog.=) 'default_transaction_read_only') AS source;

-- name: now_snapshot
-- The snapshot that a feed without a past begins from.
SELECT pg_catalog.pg_current_snapshot()::pg_catalog.text;

-- name: heal_future_xids
-- After a restore into a new cluster, old rows can carry transaction ids that are still to come here: call those delivered.
UPDATE realtime.messages SET xid = '0'
WHERE xid OPERATOR(pg_catalog.>=) pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot());

-- name: plan_looks_by_index
-- For the session of the feed: a look is planned once, for any snapshot, and always by index: estimates for an unknown snapshot
-- are useless.
SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off;

-- name: look
-- A page of what became visible since the snapshot $1: at most $4 rows, about $5 bytes, no event over $6 bytes. The first page, and
-- the snapshot that it was seen in; or the page after row $3 of the window that ends with the snapshot $2.
SELECT snapshot, more, last_seq, webhooks, seqs, keys, channels, events, oversized, failed, failed_id
FROM realtime.read_page($1::text::pg_snapshot, $2::text::pg_snapshot, $3, $4, $5, $6);

-- name: limit_statements
-- What PostgreSQL gives a statement of this session from now on, in milliseconds.
SET statement_timeout = $1;

-- name: mark_undeliverable
-- Pass the row $1 over from now on, because of $2: for sockets, webhooks, whoever reads it back.
UPDATE realtime.messages SET undeliverable = $2 WHERE seq = $1 AND undeliverable IS NULL;

-- name: find_witnesses
-- Of the rows with the numbers $2 and the keys $3, each delivered after the snapshot $4 of the footprint $1: which numbers exist in
-- this database, whether they are the same messages, and whether that proves the footprint, since it began after the snapshot.
SELECT w.footprint, uuid_hash_extended(m.id, 0) = w.key AS same,
       uuid_hash_extended(m.id, 0) = w.key AND m.xid >= pg_snapshot_xmax(w.since::pg_snapshot) AS proves
FROM unnest($1::int[], $2::bigint[], $3::bigint[], $4::text[]) AS w (footprint, seq, key, since)
JOIN realtime.messages m ON m.seq = w.seq;

-- name: server_life
-- Names the time from one start of the server, or crash, to the next: a crash that the postmaster survives resets the statistics.
SELECT concat(extract(epoch FROM pg_postmaster_start_time()), '/', extract(epoch FROM stats_reset)) FROM pg_stat_bgwriter;

-- name: flush_wal
-- Have everything that was written to the WAL until now flushed on this machine: it takes a commit that writes something.
SELECT set_config('synchronous_commit', 'local', true), pg_logical_emit_message(true, 'insforge-realtime', '');

-- name: wal_position
-- Which cluster this is, on which timeline, how far its WAL has been written and flushed, and the newest message's number.
SELECT system_identifier || '/' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) AS history,
       (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint AS inserted,
       (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint AS flushed,
       coalesce(pg_sequence_last_value('realtime.messages_seq_seq'::regclass), 0) AS seq
FROM pg_control_system();

-- name: is_two_phase
-- Whether transactions may be prepared, so that no writer rings.
SELECT realtime.is_two_phase();

-- name: take_ticket
-- Say that this feed is about to sleep; the ticket counts only if it is greater than `rung`.
SELECT pg_catalog.nextval('realtime.asleep') AS ticket,
       coalesce(pg_catalog.pg_sequence_last_value('realtime.rung'::pg_catalog.regclass), 0) AS rung;

-- name: barrier
-- A transaction id of our own: once every snapshot is past it, no writer is left that may have missed the ticket.
SELECT pg_catalog.pg_current_xact_id()::pg_catalog.text::bigint;

-- name: is_rung
-- Whether ticket $1 has been called.
SELECT $1::bigint OPERATOR(pg_catalog.<=) coalesce(pg_catalog.pg_sequence_last_value('realtime.rung'::pg_catalog.regclass), 0);

-- name: call
-- Wake all feeds whose ticket is not greater than ring number $1 (a forged one counts no further than `asleep`); gives the number,
-- unless all of them are awake.
WITH ring AS MATERIALIZED (
    SELECT least($1::bigint, pg_catalog.pg_sequence_last_value('realtime.asleep'::pg_catalog.regclass)) AS number)
SELECT number, pg_catalog.pg_notify('realtime', pg_catalog.concat('awake ', number)) FROM ring
WHERE number OPERATOR(pg_catalog.>) coalesce(pg_catalog.pg_sequence_last_value('realtime.rung'::pg_catalog.regclass), 0);

-- name: answer_ring
-- All feeds whose ticket is not greater than $1 have been called, so nobody need ring for them.
SELECT pg_catalog.setval('realtime.rung', $1::bigint)
WHERE $1::bigint OPERATOR(pg_catalog.>) coalesce(pg_catalog.pg_sequence_last_value('realtime.rung'::pg_catalog.regclass), 0);

-- name: check_subscribe
-- Judge many subscribe requests under row-level security in one round trip.
SELECT realtime.check_subscribe($1::pg_catalog.text[], $2::pg_catalog.text[], $3::pg_catalog.text[]);

-- name: publish_as
-- Insert many clients' messages, each under the INSERT policies of its own role.
SELECT realtime.publish_as($1::pg_catalog.text[], $2::pg_catalog.text[], $3::pg_catalog.text[], $4::pg_catalog.text[], $5::pg_catalog.text[]);

-- name: publish_lists
-- Publish lists of messages as the system, each as a whole or not at all.
SELECT realtime.publish_lists($1::int[], $2::pg_catalog.text[], $3::pg_catalog.text[], $4::pg_catalog.text[]);

-- name: plan_counts_by_index
-- For the session of the counters: thousands of rows of a large table, each found by its seq, whatever the statistics say.
SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;

-- name: count_audience
-- Add to the WebSocket audience of many messages at once: $1 their seq, $2 how many sockets each was sent to.
UPDATE realtime.messages m SET ws_audience_count = m.ws_audience_count OPERATOR(pg_catalog.+) d.audience
FROM unnest($1::bigint[], $2::int[]) AS d (seq, audience) WHERE m.seq OPERATOR(pg_catalog.=) d.seq;

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

-- name: demo_objects
-- What there is under the demo's names, and whether the demo made it (demo.sql, which marks it). Some may be an application's.
SELECT f.what, f.note IS NOT DISTINCT FROM 'Made by the demo of insforge-realtime dev' AS ours FROM (
    SELECT 'the table ' || c.oid::regclass, obj_description(c.oid, 'pg_class')
    FROM unnest('{orders, chat_members, admins}'::text[]) n (name) JOIN pg_class c ON c.oid = to_regclass(n.name)
    UNION ALL
    SELECT 'the type ' || t.oid::regtype, NULL
    FROM unnest('{orders, chat_members, admins}'::text[]) n (name) JOIN pg_type t ON t.oid = to_regtype(n.name) AND t.typrelid = 0
    UNION ALL
    SELECT 'the function ' || p.oid::regprocedure, obj_description(p.oid, 'pg_proc')
    FROM pg_proc p WHERE p.oid = to_regprocedure('notify_order_changes()')
    UNION ALL
    SELECT format('the policy %I on %s', p.polname, p.polrelid::regclass), obj_description(p.oid, 'pg_policy')
    FROM pg_policy p WHERE p.polrelid IN ('realtime.channels'::regclass, 'realtime.messages'::regclass) AND p.polname IN (
        'public_subscribe_orders', 'users_subscribe_own_orders', 'members_subscribe_chat', 'admins_publish_orders', 'members_publish_chat')
    UNION ALL
    SELECT 'the channel ' || c.pattern, CASE WHEN c.description LIKE 'Demo: %' THEN 'Made by the demo of insforge-realtime dev' END
    FROM realtime.channels c WHERE c.pattern IN ('orders', 'order:%', 'chat:%')
) f (what, note);

-- name: is_adoption
-- Whether there are tables of another realtime server's, which a migration would make ours.
SELECT count(*) FILTER (WHERE relname = 'schema_migrations') = 0 AND count(*) FILTER (WHERE relname <> 'schema_migrations') > 0
FROM pg_class WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'realtime')
  AND relname IN ('channels', 'messages', 'schema_migrations');

-- name: migrator
-- Whom a refused migration asks grants for, and where, quoted.
SELECT quote_ident(current_user) AS user, quote_ident(current_database()) AS database;

-- name: database_encoding
-- How this database's text is encoded.
SELECT current_database() AS name, pg_encoding_to_char(encoding) AS encoding FROM pg_database WHERE datname = current_database();

-- name: migrate_limits
-- For one transaction: no time limits (those that this version of PostgreSQL knows), and names that mean what they say.
SELECT set_config(name, CASE name WHEN 'search_path' THEN 'pg_catalog, pg_temp' WHEN 'client_min_messages' THEN 'warning' ELSE '0' END, true)
FROM pg_settings WHERE name IN (
    'statement_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout', 'search_path', 'client_min_messages');

-- name: lock_shortly
-- For one transaction: wait $1 seconds for a lock, or, where $2 is not 0, $2 seconds longer than deadlock_timeout. Gives the backend.
SELECT pg_backend_pid() FROM set_config('lock_timeout', (1000 * CASE WHEN $2::float8 = 0 THEN $1::float8
    ELSE $2 + extract(epoch FROM current_setting('deadlock_timeout')::interval) END)::integer::text, true);

-- name: may_lock
-- Whether table $1 exists, and is one that we may lock.
SELECT EXISTS (SELECT FROM pg_class WHERE oid = to_regclass($1::text) AND has_table_privilege(oid, 'UPDATE'));

-- name: lock_obstacles
-- Whom backend $1 waits for, and what could be done: all that may be shown of a session, which is the kind of its statement only.
SELECT w.what, coalesce(p.whose, CASE WHEN s.pid IS NOT NULL THEN format('pid %s (%s)', s.pid, concat_ws(', ', coalesce(nullif(s.application_name, ''), 'no name'),
           coalesce('user ' || s.usename, s.backend_type, 'a process of the server'), s.state, 'in a transaction since ' || s.xact_start::timestamptz(0),
           CASE WHEN s.state = 'active' THEN 'statement: ' ELSE 'last statement: ' END || upper(substring(regexp_replace(s.query,
               '^(\s|/\*.*?\*/|--[^\n]*(\n|$))+', '') FROM '^[[:alpha:]]+')))) END, 'a session that has just ended') AS whose,
       coalesce(p.cure, CASE WHEN w.advisory THEN 'wait until the other migration has ended'
           ELSE format('end that transaction, or SELECT pg_terminate_backend(%s)', b.pid) END) AS cure,
       w.advisory AS migrator, b.pid <> 0 AND s.pid IS NOT NULL AND s.usesysid IS NULL AS vacuum
FROM (
    SELECT relation, locktype = 'advisory' AS advisory, CASE locktype WHEN 'relation' THEN relation::regclass::text
        WHEN 'advisory' THEN 'the lock of migrations' ELSE 'a lock on a ' || locktype END AS what
    FROM pg_locks WHERE pid = $1::integer AND NOT granted
) w
CROSS JOIN (SELECT DISTINCT unnest(pg_blocking_pids($1)) AS pid) b
LEFT JOIN pg_stat_activity s ON s.pid = b.pid
LEFT JOIN LATERAL (
    SELECT string_agg(format('the prepared transaction %L (user %s, since %s)', x.gid, x.owner, x.prepared::timestamptz(0)), '; ') AS whose,
           string_agg(format('COMMIT PREPARED %1$L or ROLLBACK PREPARED %1$L', x.gid), '; ') AS cure
    FROM pg_prepared_xacts x
    JOIN pg_locks own ON own.pid IS NULL AND own.transactionid = x.transaction
    WHERE b.pid = 0 AND x.database = current_database() AND EXISTS (
        SELECT FROM pg_locks l WHERE l.pid IS NULL AND l.relation = w.relation AND l.virtualtransaction = own.virtualtransaction)
) p ON true
ORDER BY s.xact_start LIMIT 5;

-- name: probe_claims
-- Be somebody with the claims $1, in both forms that clients have them in (judges.sql), and with the search_path that sessions
-- begin with, until the end of the transaction.
SELECT set_config('request.jwt.claims', $1::text, true),
       set_config('request.jwt.claim.sub', coalesce(nullif($1, '')::jsonb ->> 'sub', ''), true),
       set_config('request.jwt.claim.role', coalesce(nullif($1, '')::jsonb ->> 'role', ''), true),
       set_config('request.jwt.claim.email', coalesce(nullif($1, '')::jsonb ->> 'email', ''), true),
       set_config(name, reset_val, true)
FROM pg_settings WHERE name = 'search_path';

-- name: auth_uid_exists
-- Whether there is an auth.uid(), found without any right to the schema.
SELECT EXISTS (SELECT FROM pg_proc WHERE pronamespace = to_regnamespace('auth') AND proname = 'uid' AND pronargs = 0);

-- name: probe_uid
-- Who auth.uid() says asks, as the uuid that a message's sender_id is.
SELECT auth.uid()::text::uuid::text;
