-- What the feed asks: what is new, where it may go on after a failover, and who sleeps. For pg/feed.py, pg/pages.py, pg/trail.py. Its
-- session's search_path is pg_catalog; names are qualified all the same where triggers of others' may run.

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
