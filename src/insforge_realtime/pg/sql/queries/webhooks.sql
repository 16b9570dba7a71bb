-- The queue of webhooks: claim what is due, write down what came of it, and what operators ask. For pg/deliveries.py.
-- The statements run under the session's search_path, which triggers on these tables may need; so functions are qualified, and operators
-- get operands of just the types that PostgreSQL's own have: nobody's can fit better. (unnest of several arrays is syntax.)
--
-- Times are those of the database's clock, which may be set at any moment: a step of time synchronisation, a failover to another
-- host. Whatever it does:
--   - The holder of a lease is never robbed of it. A lease lasts until the clock that the claiming server has itself seen running
--     undisturbed, for at least as long as the lease, has passed its end. (A server's attempts end by its own clock before that.)
--   - Nothing waits longer than intended. A row's updated_at is of the same moment as its next_attempt_at: if it lies ahead,
--     the clock was set back since, and the difference of the two is the wait that is left. (mend_times)
-- If the clock is set ahead, retries come early.

-- name: plan_claims_by_index
-- For the session of the webhooks' worker: the rows that are due are few, whatever the table's history and its statistics say.
SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;

-- name: claim_deliveries
-- Take up to $1 due deliveries under the lease $2 for $3 seconds, from every host at most $4, or what $5 and $6 say of a host:
-- the messages to send, in how many seconds the next delivery of another moment is due, and what time it is. $7 is the time that
-- it must be by now as far as the server knows, which has seen the clock run undisturbed for $8 seconds.
-- The hosts are found by hopping through the index, so ten thousand rows of a host that hangs are never read. Nothing here is
-- joined the other way round by a plan that was made while the tables were small: hence the arrays and OFFSET 0, here and below.
WITH RECURSIVE hosts AS (
    (SELECT host, next_attempt_at AS due FROM realtime.webhook_deliveries WHERE state = 'pending'
     ORDER BY host, next_attempt_at LIMIT 1)
    UNION ALL
    SELECT further.host, further.due FROM hosts, LATERAL (
        SELECT d.host, d.next_attempt_at AS due FROM realtime.webhook_deliveries d
        WHERE d.state = 'pending' AND d.host > hosts.host ORDER BY d.host, d.next_attempt_at LIMIT 1) further
), open AS (
    SELECT h.host, h.due, least(coalesce(l.rows, $4::int), $1::int) AS rows
    FROM hosts h LEFT JOIN unnest($5::text[], $6::int[]) AS l (host, rows) ON l.host = h.host
    WHERE coalesce(l.rows, 1) > 0
), served AS (
    SELECT o.host, least(o.rows, greatest(1, $1::int / (pg_catalog.count(*) OVER ())::int)) AS rows
    FROM open o WHERE o.due <= pg_catalog.now() ORDER BY o.due LIMIT $1::int
), due AS MATERIALIZED (
    SELECT d.id FROM served s, LATERAL (
        SELECT w.id FROM realtime.webhook_deliveries w
        WHERE w.state = 'pending' AND w.host = s.host AND w.next_attempt_at <= pg_catalog.now()
          AND (w.lease IS NULL OR w.next_attempt_at <= pg_catalog.to_timestamp($7::float8)
               AND w.next_attempt_at - w.updated_at <= $8::float8 * interval '1 s')
        ORDER BY w.next_attempt_at LIMIT s.rows FOR UPDATE SKIP LOCKED) d
), claimed AS (
    UPDATE realtime.webhook_deliveries d SET
        lease = $2::bigint, next_attempt_at = pg_catalog.now() + $3::float8 * interval '1 s', updated_at = pg_catalog.now(),
        history = CASE WHEN d.lease IS NULL THEN d.history
            ELSE d.history || pg_catalog.jsonb_build_object('at', pg_catalog.now(), 'error', 'the lease ended without a result: its server was gone') END
    WHERE d.id = ANY (ARRAY (SELECT id FROM due))
    RETURNING d.id, d.message_id, d.url, d.host, d.attempts
)
SELECT c.id, c.url, c.host, c.attempts, m.id::text AS message_id, m.event_name AS event, m.channel_name AS channel,
       realtime.payload_text(m.payload) AS payload, w.seconds, extract(epoch FROM pg_catalog.now())::float8 AS now
FROM (SELECT extract(epoch FROM pg_catalog.min(due) - pg_catalog.now())::float8 AS seconds FROM open WHERE due > pg_catalog.now()) w
LEFT JOIN claimed c ON true
LEFT JOIN LATERAL (SELECT * FROM realtime.messages WHERE id = c.message_id OFFSET 0) m ON true;

-- name: mend_times
-- Let up to $1 pending rows that were written before the clock was set back wait, from now on, for what they had to wait then;
-- their number, and what time it is. (A second is the tolerance for transactions that ran at the same time.)
WITH late AS MATERIALIZED (
    SELECT id FROM realtime.webhook_deliveries
    WHERE state = 'pending' AND next_attempt_at > pg_catalog.now() AND updated_at > pg_catalog.now() + interval '1 s'
    LIMIT $1::int FOR UPDATE SKIP LOCKED
), mended AS (
    UPDATE realtime.webhook_deliveries d
    SET next_attempt_at = pg_catalog.now() + (d.next_attempt_at - d.updated_at), updated_at = pg_catalog.now()
    WHERE d.id = ANY (ARRAY (SELECT id FROM late)) RETURNING 1
)
SELECT pg_catalog.count(*)::int AS mended, extract(epoch FROM pg_catalog.now())::float8 AS now FROM mended;

-- name: say_which_networks
-- For as long as this session lasts: a server is there ($1) that may send to these networks ($2, a number for them).
SELECT pg_catalog.pg_try_advisory_lock_shared($1::int, $2::int);

-- name: decline_deliveries
-- Write down that this server, one of those with the networks $6, may not send these. While servers with other networks are there
-- (by the lock $7) that have refused neither a delivery nor, as far as this one knows ($8, $9), its host of late, it is left to them,
-- at once and without an attempt; else it was one, with the state and the pause that follow. Which deliveries that were, whether
-- they were left to others, and who else has refused each.
WITH results AS (
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::float8[], $5::text[]) AS r (id, lease, state, pause, error)
), others AS MATERIALIZED (
    SELECT DISTINCT l.objid FROM pg_catalog.pg_locks l
    WHERE l.locktype = 'advisory' AND l.granted AND l.classid = $7::oid AND l.objid <> $6::oid AND l.objsubid = 2::smallint
      AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
), judged AS MATERIALIZED (
    SELECT r.*, EXISTS (SELECT FROM others o WHERE NOT d.history @> pg_catalog.jsonb_build_array(
            pg_catalog.jsonb_build_object('refused_by', o.objid::bigint))
        AND NOT EXISTS (SELECT FROM unnest($8::text[], $9::bigint[]) AS k (host, networks)
                        WHERE k.host = d.host AND k.networks = o.objid::bigint)) AS left_to_others
    FROM results r JOIN realtime.webhook_deliveries d ON d.id = r.id
    WHERE d.lease = r.lease AND d.id = ANY ($1::bigint[])
)
UPDATE realtime.webhook_deliveries d SET
    state = CASE WHEN d.state = 'cancelled' THEN 'cancelled' WHEN j.left_to_others THEN 'pending' ELSE j.state END,
    attempts = CASE WHEN j.left_to_others THEN d.attempts ELSE d.attempts + 1 END,
    lease = NULL, updated_at = pg_catalog.now(), last_status_code = NULL, last_error = j.error, last_response = NULL,
    next_attempt_at = pg_catalog.now() + CASE WHEN j.left_to_others THEN 0::float8 ELSE j.pause END * interval '1 s',
    history = CASE WHEN j.left_to_others AND d.history @> pg_catalog.jsonb_build_array(
            pg_catalog.jsonb_build_object('refused_by', $6::oid::bigint)) THEN d.history
        ELSE d.history || pg_catalog.jsonb_build_object('at', pg_catalog.now(), 'error', j.error, 'refused_by', $6::oid::bigint) END
FROM judged j WHERE d.id = j.id AND d.lease = j.lease AND d.id = ANY ($1::bigint[])
RETURNING d.id, j.left_to_others, ARRAY (
    SELECT (h.entry ->> 'refused_by'::text)::bigint FROM pg_catalog.jsonb_array_elements(d.history) AS h (entry)
    WHERE (h.entry ->> 'refused_by'::text) IS NOT NULL) AS refused_by;

-- name: finish_deliveries
-- Write down what came of many attempts, where the lease still holds, and count the messages that were delivered; how many that was.
-- A delivery that was cancelled meanwhile stays so, unless it arrived. Messages are locked in the order of the audience counters,
-- which update the same rows: else the two would deadlock now and then.
WITH results AS (
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::float8[], $5::int[], $6::text[], $7::text[], $8::float8[], $9::float8[])
        AS r (id, lease, state, pause, status_code, error, response, ago, took)
), done AS (
    UPDATE realtime.webhook_deliveries d SET
        state = CASE WHEN d.state = 'cancelled' AND r.state <> 'delivered' THEN 'cancelled' ELSE r.state END,
        attempts = d.attempts + 1, lease = NULL, next_attempt_at = pg_catalog.now() + r.pause * interval '1 s',
        last_status_code = r.status_code, last_error = r.error, last_response = r.response, updated_at = pg_catalog.now(),
        history = d.history || pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object('at', pg_catalog.now() - r.ago * interval '1 s',
            'ms', pg_catalog.round(r.took * 1000::float8), 'status', r.status_code, 'error', r.error))
    FROM results r WHERE d.id = r.id AND d.lease = r.lease AND d.id = ANY ($1::bigint[])
    RETURNING d.message_id, d.state
), arrived AS (
    SELECT message_id, pg_catalog.count(*) AS delivered FROM done WHERE state = 'delivered' GROUP BY 1
), locked AS MATERIALIZED (
    SELECT m.id, a.delivered FROM arrived a JOIN realtime.messages m ON m.id = a.message_id
    WHERE m.id = ANY (ARRAY (SELECT message_id FROM arrived)) ORDER BY m.seq + 0 FOR NO KEY UPDATE OF m
), counted AS (
    UPDATE realtime.messages m SET wh_delivered_count = m.wh_delivered_count + l.delivered FROM locked l
    WHERE m.id = l.id AND m.id = ANY (ARRAY (SELECT id FROM locked))
)
SELECT pg_catalog.count(*) FROM done;

-- name: release_deliveries
-- Give back what is not finished: whoever looks next may take it at once.
UPDATE realtime.webhook_deliveries d SET lease = NULL, next_attempt_at = pg_catalog.now(), updated_at = pg_catalog.now()
FROM unnest($1::bigint[], $2::bigint[]) AS r (id, lease)
WHERE d.id = r.id AND d.lease = r.lease AND d.id = ANY ($1::bigint[]);

-- name: list_deliveries
-- The newest $4 deliveries of a message ($1), to URLs that contain a text ($2), in a state ($3); NULL stands for any.
SELECT id, message_id::text AS message, url,
       CASE WHEN state = 'pending' AND lease IS NOT NULL AND next_attempt_at > pg_catalog.now() THEN 'sending' ELSE state END AS state,
       attempts, CASE WHEN state = 'pending' THEN next_attempt_at END AS next_attempt_at,
       last_status_code, last_error, last_response, history::text AS history, created_at, updated_at
FROM realtime.webhook_deliveries
WHERE ($1::uuid IS NULL OR message_id = $1) AND ($2::text IS NULL OR pg_catalog.strpos(url, $2) > 0) AND ($3::text IS NULL OR state = $3)
ORDER BY id DESC LIMIT $4;

-- name: retry_deliveries
-- Begin again with the deliveries of list_deliveries' conditions that are over without success, or wait for their next attempt.
-- An attempt that is under way all the same (of one that was cancelled) keeps its lease: nobody sends beside it.
UPDATE realtime.webhook_deliveries SET state = 'pending', attempts = 0, updated_at = pg_catalog.now(),
    next_attempt_at = CASE WHEN lease IS NULL THEN pg_catalog.now() ELSE next_attempt_at END
WHERE ($1::uuid IS NULL OR message_id = $1) AND ($2::text IS NULL OR pg_catalog.strpos(url, $2) > 0) AND ($3::text IS NULL OR state = $3)
  AND (state IN ('failed', 'cancelled') OR state = 'pending' AND lease IS NULL);

-- name: cancel_deliveries
-- Send the deliveries of list_deliveries' conditions no more. The lease stays, for what an attempt under way will say.
UPDATE realtime.webhook_deliveries SET state = 'cancelled', updated_at = pg_catalog.now()
WHERE ($1::uuid IS NULL OR message_id = $1) AND ($2::text IS NULL OR pg_catalog.strpos(url, $2) > 0) AND ($3::text IS NULL OR state = $3)
  AND state = 'pending';
