-- How many sockets a message was sent to. For pg/counters.py. Triggers of others' may stand on the table: names are qualified.

-- name: plan_counts_by_index
-- For the session of the counters: thousands of rows of a large table, each found by its seq, whatever the statistics say.
SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;

-- name: count_audience
-- Add to the WebSocket audience of many messages at once: $1 their seq, $2 how many sockets each was sent to.
UPDATE realtime.messages m SET ws_audience_count = m.ws_audience_count OPERATOR(pg_catalog.+) d.audience
FROM unnest($1::bigint[], $2::int[]) AS d (seq, audience) WHERE m.seq OPERATOR(pg_catalog.=) d.seq;
