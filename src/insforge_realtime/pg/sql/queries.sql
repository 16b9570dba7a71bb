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

-- name: is_two_phase
-- Whether transactions may be prepared, so that no writer rings.
SELECT realtime.is_two_phase();

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
-- Be somebody with the claims $1, until the end of the transaction.
SELECT set_config('request.jwt.claims', $1, true);

-- name: auth_uid_exists
-- Whether there is an auth.uid(), found without any right to the schema.
SELECT EXISTS (SELECT FROM pg_proc WHERE pronamespace = to_regnamespace('auth') AND proname = 'uid' AND pronargs = 0);

-- name: probe_uid
-- Who auth.uid() says asks, as the uuid that a message's sender_id is.
SELECT auth.uid()::text::uuid::text;

-- name: doctor_owner
-- (From here on: the questions of pg/doctor.py. Most return what is wrong, a row each: verdict, what, advice; or nothing.)
-- Row-level security does not filter for the owner (or whoever inherits from it); it would filter the feed of others.
SELECT 'broken' AS verdict,
       format('%s belongs to %I, and the server connects as %I: row-level security would hide rows from it',
              c.oid::regclass, pg_get_userbyid(c.relowner), current_user) AS what,
       format('connect as %I; or ALTER TABLE %s OWNER TO %I, the functions of the schema too, then `insforge-realtime migrate`',
              pg_get_userbyid(c.relowner), c.oid::regclass, current_user) AS advice
FROM pg_class c, pg_roles me
WHERE c.oid IN ('realtime.channels'::regclass, 'realtime.messages'::regclass) AND me.rolname = current_user
  AND NOT (me.rolsuper OR pg_has_role(me.oid, c.relowner, 'USAGE') OR me.rolbypassrls
           AND has_table_privilege(me.oid, c.oid, 'SELECT') AND has_table_privilege(me.oid, c.oid, 'UPDATE')
           AND has_function_privilege(me.oid, 'realtime.check_subscribe(text[], text[], text[])', 'EXECUTE')
           AND has_sequence_privilege(me.oid, 'realtime.rung', 'UPDATE'))
ORDER BY 1;

-- name: doctor_forced
-- FORCE subjects even the owner to the policies: publish() and the feed would be judged like clients.
SELECT 'broken' AS verdict,
       format('FORCE ROW LEVEL SECURITY is set on %s: its policies would filter the server itself', c.oid::regclass) AS what,
       format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY', c.oid::regclass) AS advice
FROM pg_class c JOIN pg_roles owner ON owner.oid = c.relowner
WHERE c.oid IN ('realtime.channels'::regclass, 'realtime.messages'::regclass)
  AND c.relforcerowsecurity AND NOT (owner.rolsuper OR owner.rolbypassrls)
ORDER BY c.relname;

-- name: doctor_triggers
-- The stamp tells the owner's rows from users' by the owner's name, and publish() must run as that owner.
WITH owner AS (
    SELECT relowner AS oid, pg_get_userbyid(relowner) AS name FROM pg_class WHERE oid = 'realtime.messages'::regclass
)
SELECT 'broken' AS verdict, format('the trigger %s on realtime.messages is missing or disabled: %s', w.name, w.meaning) AS what,
       format('ALTER TABLE realtime.messages ENABLE TRIGGER %s; or, where it is missing, `insforge-realtime migrate`', w.name) AS advice
FROM (VALUES ('stamp_message', 'senders can be forged'), ('ring', 'messages arrive seconds late'),
             ('queue_webhooks', 'no webhook is sent')) w (name, meaning)
WHERE NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = 'realtime.messages'::regclass AND t.tgname = w.name
                  AND t.tgenabled IN ('O', 'A'))
UNION ALL
SELECT 'broken', format('the trigger stamp_message does not name the present owner %I: it takes system messages for users'' ones',
                        owner.name),
       format('run `insforge-realtime migrate` as %I', owner.name)
FROM pg_trigger t, owner
WHERE t.tgrelid = 'realtime.messages'::regclass AND t.tgname = 'stamp_message'
  AND position('<> ' || quote_literal(owner.name) || '::text' IN pg_get_triggerdef(t.oid)) = 0
UNION ALL
SELECT 'broken', format('the function %s belongs to %I, but realtime.messages to %I', p.oid::regprocedure,
                        pg_get_userbyid(p.proowner), owner.name),
       format('ALTER FUNCTION %s OWNER TO %I, then `insforge-realtime migrate`', p.oid::regprocedure, owner.name)
FROM pg_proc p, owner
WHERE p.oid IN ('realtime.publish(text, text, jsonb)'::regprocedure, 'realtime.stamp_message()'::regprocedure,
                'realtime.ring()'::regprocedure, 'realtime.queue_webhooks()'::regprocedure) AND p.proowner <> owner.oid
UNION ALL
SELECT 'broken', format('the function %s is not SECURITY DEFINER', p.oid::regprocedure), 'run `insforge-realtime migrate`'
FROM pg_proc p
WHERE p.oid IN ('realtime.publish(text, text, jsonb)'::regprocedure, 'realtime.stamp_message()'::regprocedure,
                'realtime.ring()'::regprocedure, 'realtime.queue_webhooks()'::regprocedure) AND NOT p.prosecdef;

-- name: doctor_grants
-- What the three roles need, beside policies, to be judged at all; without it every answer is INTERNAL_ERROR.
SELECT 'broken' AS verdict, format('the role %s lacks %s', r.rolname, n.missing) AS what,
       format('GRANT %s TO %s', n.missing, r.rolname) AS advice
FROM pg_roles r, LATERAL (VALUES
    ('USAGE ON SCHEMA realtime', has_schema_privilege(r.oid, 'realtime', 'USAGE')),
    ('SELECT ON realtime.channels', has_column_privilege(r.oid, 'realtime.channels', 'id', 'SELECT')),
    ('INSERT ON realtime.messages', has_column_privilege(r.oid, 'realtime.messages', 'channel_name', 'INSERT')
        AND has_column_privilege(r.oid, 'realtime.messages', 'event_name', 'INSERT')
        AND has_column_privilege(r.oid, 'realtime.messages', 'payload', 'INSERT')),
    ('EXECUTE ON FUNCTION realtime.channel_name()', has_function_privilege(r.oid, 'realtime.channel_name()', 'EXECUTE'))
) n (missing, held)
WHERE r.rolname IN ('anon', 'authenticated', 'project_admin') AND NOT n.held
UNION ALL
SELECT CASE WHEN r.oid = m.relowner THEN 'broken' ELSE 'open' END,
       format('the role %I lacks %s, which %s', r.rolname, n.missing,
              CASE WHEN r.oid = m.relowner THEN 'every client''s publish needs' ELSE 'policies with auth.uid() need' END),
       format('GRANT %s TO %I', n.missing, r.rolname)
FROM pg_roles r, pg_class m, LATERAL (VALUES
    ('USAGE ON SCHEMA auth', has_schema_privilege(r.oid, 'auth', 'USAGE')),
    ('EXECUTE ON FUNCTION auth.uid()', has_function_privilege(
        r.oid, (SELECT p.oid FROM pg_proc p WHERE p.pronamespace = to_regnamespace('auth') AND p.proname = 'uid' AND p.pronargs = 0),
        'EXECUTE'))
) n (missing, held)
WHERE m.oid = 'realtime.messages'::regclass
  AND (r.rolname IN ('anon', 'authenticated', 'project_admin') OR r.oid = m.relowner) AND NOT n.held;

-- name: doctor_excess
-- What clients' roles should not have: policies do not restrain TRUNCATE, and publish() speaks as the system.
SELECT 'open' AS verdict, format('the role %s has %s: row-level security does not restrain that', r.rolname, n.excess) AS what,
       format('REVOKE %s FROM PUBLIC, %s', n.excess, r.rolname) AS advice
FROM pg_roles r, pg_class m, LATERAL (VALUES
    ('TRUNCATE ON realtime.channels', has_table_privilege(r.oid, 'realtime.channels', 'TRUNCATE')),
    ('TRUNCATE ON realtime.messages', has_table_privilege(r.oid, 'realtime.messages', 'TRUNCATE')),
    ('TRUNCATE ON realtime.webhook_deliveries', has_table_privilege(r.oid, 'realtime.webhook_deliveries', 'TRUNCATE')),
    ('TRIGGER ON realtime.messages', has_table_privilege(r.oid, 'realtime.messages', 'TRIGGER')),
    ('EXECUTE ON FUNCTION realtime.publish(text, text, jsonb)',
        has_function_privilege(r.oid, 'realtime.publish(text, text, jsonb)', 'EXECUTE'))
) n (excess, held)
WHERE m.oid = 'realtime.messages'::regclass AND r.rolname IN ('anon', 'authenticated')
  AND n.held AND NOT pg_has_role(r.oid, m.relowner, 'USAGE');

-- name: doctor_rls
-- An adopted database may have row-level security off: nobody's requests are judged then.
SELECT 'open' AS verdict,
       format('row-level security is OFF on %s: everybody may %s', c.oid::regclass, t.may) AS what,
       format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY; %s', c.oid::regclass, CASE WHEN p.written > 0
           THEN format('then the %s policies that it has decide', p.written)
           ELSE format('then nobody may until policies allow it, e.g. CREATE POLICY signed_in ON %s %s', c.oid::regclass, t.example)
       END) AS advice
FROM (VALUES
    ('realtime.channels'::regclass, 'subscribe to every channel', 'FOR SELECT TO authenticated USING (pattern = ''orders'')'),
    ('realtime.messages', 'publish to every channel', 'FOR INSERT TO authenticated WITH CHECK (channel_name LIKE ''chat:%'')')
) t (name, may, example)
JOIN pg_class c ON c.oid = t.name
CROSS JOIN LATERAL (
    SELECT count(*) AS written FROM pg_policy WHERE polrelid = c.oid AND polname <> 'project_admin_policy') p
WHERE NOT c.relrowsecurity
ORDER BY c.relname;

-- name: doctor_policies
-- With row-level security on, what no permissive policy allows is denied.
SELECT 'open' AS verdict, format('no policy on %s lets anon or authenticated %s', c.oid::regclass, t.act) AS what,
       format('CREATE POLICY … ON %s %s', c.oid::regclass, t.example) AS advice
FROM (VALUES
    ('realtime.channels'::regclass, 'r', 'subscribe: nobody can', 'FOR SELECT TO authenticated USING (pattern = ''orders'')'),
    ('realtime.messages', 'a', 'publish: no client can (fine if only triggers publish)',
     'FOR INSERT TO authenticated WITH CHECK (channel_name LIKE ''chat:%'')')
) t (name, command, act, example)
JOIN pg_class c ON c.oid = t.name
WHERE c.relrowsecurity AND NOT EXISTS (
    SELECT FROM pg_policy p CROSS JOIN unnest(p.polroles) AS target
    WHERE p.polrelid = c.oid AND p.polpermissive AND p.polcmd IN (t.command::"char", '*')
      AND (target = 0 OR EXISTS (SELECT FROM pg_roles r WHERE r.rolname IN ('anon', 'authenticated') AND pg_has_role(r.oid, target, 'USAGE'))))
ORDER BY c.relname;

-- name: doctor_admin_policy
-- The API key's role is judged too; this policy is what lets it in.
SELECT 'open' AS verdict, format('no policy project_admin_policy on %s: clients with the API key are refused', c.oid::regclass) AS what,
       format('CREATE POLICY project_admin_policy ON %s TO project_admin USING (true) WITH CHECK (true)', c.oid::regclass) AS advice
FROM pg_class c
WHERE c.oid IN ('realtime.channels'::regclass, 'realtime.messages'::regclass) AND c.relrowsecurity
  AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'project_admin_policy')
  AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = 'project_admin' AND r.rolbypassrls)
ORDER BY c.relname;

-- name: doctor_channels
-- Without an enabled channel there is nothing to subscribe to.
SELECT 'open' AS verdict, 'no channel is enabled: there is nothing to subscribe to' AS what,
       'INSERT INTO realtime.channels (pattern) VALUES (''order:%'')' AS advice
WHERE NOT EXISTS (SELECT FROM realtime.channels WHERE enabled);

-- name: doctor_patterns
-- LIKE raises for these, whatever name is looked up: rows from before our constraint.
SELECT CASE WHEN enabled THEN 'broken' ELSE 'open' END AS verdict,
       format('the channel pattern %L is no LIKE pattern (empty, or a lone backslash at its end)', pattern) AS what,
       format('UPDATE realtime.channels SET pattern = … WHERE id = %L', id) AS advice
FROM realtime.channels WHERE pattern = '' OR pattern ~ '(^|[^\\])(\\\\)*\\$'
ORDER BY pattern;

-- name: doctor_webhooks
-- Whether the trigger that queues webhooks may do so, and which URLs cannot be sent to.
SELECT 'broken' AS verdict,
       format('realtime.webhook_deliveries belongs to %I, but realtime.messages to %I: publishing to channels with webhooks fails',
              pg_get_userbyid(d.relowner), pg_get_userbyid(m.relowner)) AS what,
       format('ALTER TABLE realtime.webhook_deliveries OWNER TO %I', pg_get_userbyid(m.relowner)) AS advice
FROM pg_class d, pg_class m
WHERE d.oid = 'realtime.webhook_deliveries'::regclass AND m.oid = 'realtime.messages'::regclass AND d.relowner <> m.relowner
UNION ALL
SELECT 'open', format('a webhook URL of the channel %L is no http:// or https:// URL: its deliveries fail', c.pattern),
       format('mend webhook_urls: UPDATE realtime.channels SET webhook_urls = … WHERE id = %L', c.id)
FROM realtime.channels c
WHERE c.enabled AND EXISTS (
    SELECT FROM unnest(c.webhook_urls) u (url)
    WHERE btrim(u.url, E' \t\r\n') !~* '^https?://([^/?#\s]*@)?(\[[0-9a-f:.]+\]|[^/?#\s:@\\]+)(:\d{1,5})?([/?#]\S*)?$'
      AND btrim(u.url, E' \t\r\n') <> '');

-- name: doctor_immutable
-- PostgreSQL may evaluate an IMMUTABLE function once, when it plans: the first caller's identity would answer for everyone.
-- The functions that the policies call, those that these call (as far as the catalog or a qualified name tells), and auth.*.
WITH RECURSIVE ours AS (
    SELECT p.oid, p.proname, n.nspname, p.provolatile, p.prolang,
           coalesce(pg_get_function_sqlbody(p.oid), p.prosrc) AS body
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND p.prokind = 'f'
), called AS (
    SELECT d.refobjid AS oid FROM pg_policy p
    JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_proc'::regclass
    WHERE p.polrelid IN ('realtime.channels'::regclass, 'realtime.messages'::regclass)
    UNION
    SELECT next.oid FROM called JOIN ours caller ON caller.oid = called.oid JOIN ours next ON
        strpos(caller.body, next.nspname || '.' || next.proname || '(') > 0
        OR EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = caller.oid
                   AND d.refclassid = 'pg_proc'::regclass AND d.refobjid = next.oid)
)
SELECT 'broken' AS verdict,
       format('the function %s is marked IMMUTABLE, but its answer depends on who asks or on rows', f.oid::regprocedure) AS what,
       format('ALTER FUNCTION %s STABLE', f.oid::regprocedure) AS advice
FROM ours f
WHERE f.provolatile = 'i'
  AND (f.nspname = 'auth' AND f.proname IN ('uid', 'jwt', 'role', 'email')
    OR f.oid IN (SELECT oid FROM called) AND (
        f.body ~* 'auth\.(uid|jwt|role|email)\s*\(|current_setting\s*\(|realtime\.channel_name\s*\(|\mcurrent_user\M'
        OR EXISTS (
            SELECT FROM regexp_matches(f.body, '\m(?:from|join)\s+(?:only\s+)?(?:["\w]+\.)*"?(\w+)', 'gi') AS m
            JOIN pg_class c ON lower(c.relname) = lower(m[1]) AND c.relkind IN ('r', 'p', 'v', 'm', 'f'))))
ORDER BY what;

-- name: doctor_future
-- Rows whose transaction is still to come here: the database was restored into a new cluster.
SELECT 'open' AS verdict,
       format('%s rows of realtime.messages carry transaction ids from another cluster''s future', count(*)) AS what,
       'nothing to do: the feed marks them as delivered when the server starts' AS advice
FROM realtime.messages WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())
HAVING count(*) > 0;

-- name: doctor_notifiers
-- Another server's trigger that notifies for each row: slow, and a sign that two servers deliver.
SELECT 'open' AS verdict,
       format('the trigger %I on realtime.messages notifies for every row: another realtime server''s?', t.tgname) AS what,
       format('once that server is retired: DROP TRIGGER %I ON realtime.messages', t.tgname) AS advice
FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
WHERE t.tgrelid = 'realtime.messages'::regclass AND NOT t.tgisinternal AND t.tgenabled <> 'D' AND t.tgtype & 1 = 1
  AND p.prosrc ~* 'pg_notify|\mnotify\s'
ORDER BY t.tgname;

-- name: doctor_limits
-- What keeps one check from hanging, for the length of its transaction.
SELECT set_config('statement_timeout', '5s', true), set_config('lock_timeout', '5s', true);

-- name: doctor_who
-- Whom and what the server has to do with.
SELECT current_user AS me, quote_ident(current_user) AS quoted, current_setting('server_version') AS version,
       current_setting('server_version_num')::int AS number;

-- name: doctor_become
-- Act as the role $1 until the end of the transaction.
SELECT set_config('role', $1, true);

-- name: doctor_clock
-- The database's clock, in seconds since 1970.
SELECT extract(epoch FROM clock_timestamp())::float8;

-- name: doctor_ring
-- A notification on the channel $1.
SELECT pg_notify($1, '');

-- name: doctor_backend
-- Which server process answers.
SELECT pg_backend_pid();

-- name: doctor_remember
-- A setting of this session, to be read back later.
SELECT set_config('realtime.doctor', $1, false);

-- name: doctor_recall
-- Whether the session still is the one that $1 was told to.
SELECT current_setting('realtime.doctor', true) = $1;
