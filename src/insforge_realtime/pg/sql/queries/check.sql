-- What `check` asks about what is in the schema realtime. Most statements return what is wrong, a row each: verdict, what,
-- advice; or nothing. They change nothing. For pg/check/.

-- name: examine_triggers
-- The stamp tells the owner's rows from users' by the owner's name, and publish() must run as that owner. The others must fire in
-- every session, also where only ALWAYS triggers do (the apply workers of logical replication, some restores); the stamp must not
-- there, it would take copies for users' new messages.
WITH owner AS (
    SELECT relowner AS oid, pg_get_userbyid(relowner) AS name FROM pg_class WHERE oid = 'realtime.messages'::regclass
), wanted AS (
    SELECT w.*, t.tgenabled AS state FROM (VALUES
        ('stamp_message', 'senders can be forged', 'copies of messages become users'' new ones'),
        ('stamp_sender', 'messages have no sender', 'copies of messages get another sender'),
        ('ring', 'messages arrive seconds late', 'what is published there arrives seconds late'),
        ('queue_webhooks', 'no webhook is sent', 'for what is published there, no webhook is sent'),
        ('retire_copy', 'restored and replicated messages are delivered again', 'replicated messages are delivered again'),
        ('keep_history', 'messages that are updated by hand are delivered again', 'replicated updates are delivered as messages')
    ) w (name, without, there) LEFT JOIN pg_trigger t ON t.tgrelid = 'realtime.messages'::regclass AND t.tgname = w.name
)
SELECT 'broken' AS verdict, format('the trigger %s on realtime.messages is missing or disabled: %s', w.name, w.without) AS what,
       format('ALTER TABLE realtime.messages ENABLE %sTRIGGER %s; or, where it is missing, `insforge-realtime migrate`',
              CASE WHEN w.name NOT LIKE 'stamp%' THEN 'ALWAYS ' ELSE '' END, w.name) AS advice
FROM wanted w WHERE coalesce(w.state, 'D') NOT IN ('O', 'A')
UNION ALL
SELECT 'warning', format('the trigger %s on realtime.messages is %sENABLE ALWAYS, for sessions with session_replication_role = replica: %s',
                      w.name, CASE w.state WHEN 'A' THEN '' ELSE 'not ' END, w.there),
       format('ALTER TABLE realtime.messages ENABLE %sTRIGGER %s', CASE w.state WHEN 'A' THEN '' ELSE 'ALWAYS ' END, w.name)
FROM wanted w
WHERE w.state = CASE WHEN w.name LIKE 'stamp%' THEN 'A' ELSE 'O' END
UNION ALL
SELECT 'broken', format('the trigger %s does not name the present owner %I: it takes system messages for users'' ones',
                        t.tgname, owner.name),
       format('run `insforge-realtime migrate` as %I', owner.name)
FROM pg_trigger t, owner
WHERE t.tgrelid = 'realtime.messages'::regclass AND t.tgname IN ('stamp_message', 'stamp_sender')
  AND position('<> ' || quote_literal(owner.name) || '::text' IN pg_get_triggerdef(t.oid)) = 0
UNION ALL
SELECT 'broken', format('the function %s belongs to %I, but realtime.messages to %I', p.oid::regprocedure,
                        pg_get_userbyid(p.proowner), owner.name),
       format('ALTER FUNCTION %s OWNER TO %I, then `insforge-realtime migrate`', p.oid::regprocedure, owner.name)
FROM pg_proc p, owner
WHERE p.oid IN ('realtime.publish(text, text, jsonb)'::regprocedure, 'realtime.stamp_message()'::regprocedure,
                'realtime.ring()'::regprocedure, 'realtime.queue_webhooks()'::regprocedure,
                'realtime.retire_copy()'::regprocedure) AND p.proowner <> owner.oid
UNION ALL
SELECT 'broken', format('the function %s is not SECURITY DEFINER', p.oid::regprocedure), 'run `insforge-realtime migrate`'
FROM pg_proc p
WHERE p.oid IN ('realtime.publish(text, text, jsonb)'::regprocedure, 'realtime.stamp_message()'::regprocedure,
                'realtime.ring()'::regprocedure, 'realtime.queue_webhooks()'::regprocedure,
                'realtime.retire_copy()'::regprocedure) AND NOT p.prosecdef;

-- name: examine_rls
-- An adopted database may have row-level security off: nobody's requests are judged then.
SELECT 'warning' AS verdict,
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

-- name: examine_policies
-- With row-level security on, what no permissive policy allows is denied.
SELECT 'warning' AS verdict, format('no policy on %s lets anon or authenticated %s', c.oid::regclass, t.act) AS what,
       format('CREATE POLICY ... ON %s %s', c.oid::regclass, t.example) AS advice
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

-- name: examine_admin_policy
-- The API key's role is judged too; this policy is what lets it in.
SELECT 'warning' AS verdict, format('no policy project_admin_policy on %s: clients with the API key are refused', c.oid::regclass) AS what,
       format('CREATE POLICY project_admin_policy ON %s TO project_admin USING (true) WITH CHECK (true)', c.oid::regclass) AS advice
FROM pg_class c
WHERE c.oid IN ('realtime.channels'::regclass, 'realtime.messages'::regclass) AND c.relrowsecurity
  AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'project_admin_policy')
  AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = 'project_admin' AND r.rolbypassrls)
ORDER BY c.relname;

-- name: examine_channels
-- Without an enabled channel there is nothing to subscribe to.
SELECT 'warning' AS verdict, 'no channel is enabled: there is nothing to subscribe to' AS what,
       'INSERT INTO realtime.channels (pattern) VALUES (''order:%'')' AS advice
WHERE NOT EXISTS (SELECT FROM realtime.channels WHERE enabled);

-- name: examine_patterns
-- LIKE raises for these, whatever name is looked up: rows from before our constraint.
SELECT CASE WHEN enabled THEN 'broken' ELSE 'warning' END AS verdict,
       format('the channel pattern %L is not a LIKE pattern (empty, or a lone backslash at its end)', pattern) AS what,
       format('UPDATE realtime.channels SET pattern = ... WHERE id = %L', id) AS advice
FROM realtime.channels WHERE pattern = '' OR pattern ~ '(^|[^\\])(\\\\)*\\$'
ORDER BY pattern;

-- name: examine_webhooks
-- Whether the trigger that queues webhooks may do so, and which URLs cannot be sent to.
SELECT 'broken' AS verdict,
       format('realtime.webhook_deliveries belongs to %I, but realtime.messages to %I: publishing to channels with webhooks fails',
              pg_get_userbyid(d.relowner), pg_get_userbyid(m.relowner)) AS what,
       format('ALTER TABLE realtime.webhook_deliveries OWNER TO %I', pg_get_userbyid(m.relowner)) AS advice
FROM pg_class d, pg_class m
WHERE d.oid = 'realtime.webhook_deliveries'::regclass AND m.oid = 'realtime.messages'::regclass AND d.relowner <> m.relowner
UNION ALL
SELECT 'warning', format('a webhook URL of the channel %L is not an http:// or https:// URL: its deliveries fail', c.pattern),
       format('fix webhook_urls: UPDATE realtime.channels SET webhook_urls = ... WHERE id = %L', c.id)
FROM realtime.channels c
WHERE c.enabled AND EXISTS (
    SELECT FROM unnest(c.webhook_urls) u (url)
    WHERE btrim(u.url, E' \t\r\n') !~* '^https?://([^/?#\s]*@)?(\[[0-9a-f:.]+\]|[^/?#\s:@\\]+)(:\d{1,5})?([/?#]\S*)?$'
      AND btrim(u.url, E' \t\r\n') <> '');

-- name: examine_immutable
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

-- name: examine_future
-- Rows whose transaction is still to come here came past the triggers that take such ids away: those were disabled, or younger.
SELECT 'warning' AS verdict,
       format('%s rows of realtime.messages carry transaction ids of another cluster that are still to come here: they are '
              'delivered when those have come', count(*)) AS what,
       'restart the server, which marks them as delivered; or UPDATE realtime.messages SET xid = ''0'' '
       'WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())' AS advice
FROM realtime.messages WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())
HAVING count(*) > 0;

-- name: examine_undeliverable
-- What the feed had to pass over, among the newest 100 000 messages (no index knows more).
SELECT 'warning' AS verdict,
       format('%s messages of the last day could not be delivered, the newest because: %s', count(*),
              regexp_replace((array_agg(m.reason ORDER BY m.seq DESC))[1], '\s+', ' ', 'g')) AS what,
       'SELECT id, created_at, channel_name, event_name, undeliverable FROM realtime.messages WHERE undeliverable IS NOT NULL '
       'ORDER BY seq DESC' AS advice
FROM (SELECT seq, undeliverable AS reason, created_at FROM realtime.messages ORDER BY seq DESC LIMIT 100000) m
WHERE m.reason IS NOT NULL AND m.created_at > now() - interval '1 day'
HAVING count(*) > 0;

-- name: examine_subscriptions
-- Logical replication brings copies of messages along, and a copy counts as delivered.
SELECT 'warning' AS verdict,
       format('the subscription %I copies another database''s messages into realtime.messages: nobody hears them here',
              s.subname) AS what,
       format('take realtime.messages out of its publication there, then ALTER SUBSCRIPTION %I REFRESH PUBLICATION',
              s.subname) AS advice
FROM pg_subscription s JOIN pg_subscription_rel r ON r.srsubid = s.oid AND r.srrelid = 'realtime.messages'::regclass
ORDER BY s.subname;

-- name: examine_two_phase
-- A transaction that has notified cannot be prepared, so where transactions may be, the feed looks instead of being rung.
SELECT 'warning' AS verdict,
       format('transactions may be prepared here (max_prepared_transactions is %s): the feed looks for messages all the time, '
              'instead of being rung', current_setting('max_prepared_transactions')) AS what,
       format('where none that publishes is ever prepared: ALTER DATABASE %I SET realtime.two_phase = ''off''',
              current_database()) AS advice
WHERE current_setting('max_prepared_transactions')::int > 0
  AND current_setting('realtime.two_phase', true) IS DISTINCT FROM 'off';

-- name: examine_notifiers
-- Another server's trigger that notifies for each row: slow, and a sign that two servers deliver.
SELECT 'warning' AS verdict,
       format('the trigger %I on realtime.messages notifies for every row: another realtime server''s?', t.tgname) AS what,
       format('once that server is retired: DROP TRIGGER %I ON realtime.messages', t.tgname) AS advice
FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
WHERE t.tgrelid = 'realtime.messages'::regclass AND NOT t.tgisinternal AND t.tgenabled <> 'D' AND t.tgtype & 1 = 1
  AND p.prosrc ~* 'pg_notify|\mnotify\s'
ORDER BY t.tgname;
