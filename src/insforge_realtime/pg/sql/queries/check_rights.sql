-- What `check` asks about rights: the owner's, the server's, the clients'. For pg/check/; see check.sql.

-- name: examine_owner
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
ORDER BY c.relname;

-- name: examine_forced
-- FORCE subjects even the owner to the policies: publish() and the feed would be judged like clients.
SELECT 'broken' AS verdict,
       format('FORCE ROW LEVEL SECURITY is set on %s: its policies would filter the server itself', c.oid::regclass) AS what,
       format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY', c.oid::regclass) AS advice
FROM pg_class c JOIN pg_roles owner ON owner.oid = c.relowner
WHERE c.oid IN ('realtime.channels'::regclass, 'realtime.messages'::regclass)
  AND c.relforcerowsecurity AND NOT (owner.rolsuper OR owner.rolbypassrls)
ORDER BY c.relname;

-- name: examine_powers
-- Whoever acts as a client can go back to being the server: functions that policies call run in the server's session.
SELECT 'warning' AS verdict,
       format('the server''s role %I can do more than it needs (%s), and a function that a policy calls can become it (RESET ROLE)',
              me.rolname, p.powers) AS what,
       'let the schema realtime belong to a role that has no other rights, and connect as that (docs/database.md, "The server''s role")'
           AS advice
FROM pg_roles me, LATERAL (SELECT CASE WHEN me.rolsuper THEN 'it is a superuser' ELSE nullif(concat_ws(', ',
    CASE WHEN me.rolbypassrls THEN 'BYPASSRLS' END, CASE WHEN me.rolcreaterole THEN 'CREATEROLE' END,
    (SELECT 'a member of ' || string_agg(quote_ident(r.rolname), ', ' ORDER BY r.rolname) FROM pg_roles r
     WHERE r.oid <> me.oid AND pg_has_role(me.oid, r.oid, 'MEMBER') AND NOT EXISTS (
         SELECT FROM pg_roles k WHERE k.rolname IN ('anon', 'authenticated') AND pg_has_role(k.oid, r.oid, 'MEMBER'))
       AND (r.rolsuper OR r.rolcreaterole OR r.rolbypassrls AND r.rolname <> 'project_admin'
            OR r.rolname IN ('pg_execute_server_program', 'pg_write_server_files', 'pg_read_server_files', 'pg_write_all_data',
                             'pg_read_all_data'))),
    (SELECT 'the owner of ' || count(*) || ' tables of other schemas' FROM pg_class c
     WHERE c.relowner = me.oid AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
       AND c.relnamespace::regnamespace::text NOT IN ('realtime', 'auth') HAVING count(*) > 0)), '') END AS powers) p
WHERE me.rolname = session_user AND p.powers IS NOT NULL;

-- name: examine_creators
-- Names without a schema in users' functions are looked up along the role's search_path, also under SECURITY DEFINER: whoever may
-- create there can put something of his own in the place of what is meant.
SELECT 'warning' AS verdict,
       format('%s may create objects in the schema %I, where the server and what policies call look up functions and operators',
              g.names, n.nspname) AS what,
       format('REVOKE CREATE ON SCHEMA %I FROM %s', n.nspname, g.names) AS advice
FROM pg_namespace n, pg_database d, pg_class m,
     (SELECT string_to_array(translate(reset_val, '" ', ''), ',') FROM pg_settings WHERE name = 'search_path') p (path),
LATERAL (
    SELECT string_agg(CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END, ', ' ORDER BY a.grantee)
    FROM aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a LEFT JOIN pg_roles r ON r.oid = a.grantee
    WHERE a.privilege_type = 'CREATE' AND a.grantee NOT IN (n.nspowner, d.datdba, m.relowner)
      AND r.rolsuper IS NOT TRUE AND r.rolname IS DISTINCT FROM session_user) g (names)
WHERE d.datname = current_database() AND m.oid = 'realtime.messages'::regclass AND g.names IS NOT NULL
  AND (n.nspname = ANY (p.path) OR n.nspname IN ('realtime', 'auth')
       OR n.nspname IN ('anon', 'authenticated', 'project_admin', session_user) AND '$user' = ANY (p.path))
ORDER BY n.nspname;

-- name: examine_grants
-- What the three roles need, beside policies, to be judged at all; without it every answer is INTERNAL_ERROR.
SELECT 'broken' AS verdict, format('the role %s lacks %s', r.rolname, n.missing) AS what,
       format('GRANT %s TO %s', n.missing, r.rolname) AS advice
FROM pg_roles r, LATERAL (VALUES
    ('USAGE ON SCHEMA realtime', has_schema_privilege(r.oid, 'realtime', 'USAGE')),
    (CASE r.rolname WHEN 'project_admin' THEN 'SELECT' ELSE 'SELECT (id, pattern, description, enabled, created_at, updated_at)' END
        || ' ON realtime.channels', has_column_privilege(r.oid, 'realtime.channels', 'id', 'SELECT')),
    ('INSERT ON realtime.messages', has_column_privilege(r.oid, 'realtime.messages', 'channel_name', 'INSERT')
        AND has_column_privilege(r.oid, 'realtime.messages', 'event_name', 'INSERT')
        AND has_column_privilege(r.oid, 'realtime.messages', 'payload', 'INSERT')),
    ('EXECUTE ON FUNCTION realtime.channel_name()', has_function_privilege(r.oid, 'realtime.channel_name()', 'EXECUTE'))
) n (missing, held)
WHERE r.rolname IN ('anon', 'authenticated', 'project_admin') AND NOT n.held
UNION ALL
SELECT CASE WHEN r.oid = m.relowner THEN 'broken' ELSE 'warning' END,
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

-- name: examine_reads
-- A policy asks as the client: what it reads, and the functions that it calls, have to be granted to the client's role. What views
-- read, it is asked of their owners (of the client, where they are security_invoker); what the policies of those tables read, and
-- functions with a body in SQL's own syntax, is followed, too. The bodies of other functions are text. No USAGE of a schema is
-- needed: names were looked up when the policy was made.
WITH RECURSIVE asked AS (
    SELECT r.oid AS client, p.oid AS policy, r.oid AS reader, d.refclassid, d.refobjid, d.refobjsubid
    FROM pg_policy p JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid AND d.refobjid <> p.polrelid
    JOIN pg_roles r ON r.rolname IN ('anon', 'authenticated', 'project_admin') AND NOT r.rolbypassrls
    JOIN pg_class c ON c.oid = p.polrelid AND c.relrowsecurity
    WHERE (p.polrelid = 'realtime.channels'::regclass AND p.polcmd IN ('r', '*')
        OR p.polrelid = 'realtime.messages'::regclass AND p.polcmd IN ('a', '*'))
      AND EXISTS (SELECT FROM unnest(p.polroles) t (oid) WHERE t.oid = 0 OR pg_has_role(r.oid, t.oid, 'USAGE'))
    UNION
    SELECT a.client, a.policy, n.reader, n.refclassid, n.refobjid, n.refobjsubid
    FROM asked a CROSS JOIN LATERAL (
        SELECT CASE WHEN d.refclassid = 'pg_proc'::regclass OR c.reloptions::text ~* 'security_invoker=(true|on|yes|1)' THEN a.reader
                    ELSE c.relowner END AS reader, d.refclassid, d.refobjid, d.refobjsubid
        FROM pg_class c JOIN pg_rewrite w ON w.ev_class = c.oid
        JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refobjid <> c.oid
        WHERE a.refclassid = 'pg_class'::regclass AND c.oid = a.refobjid AND c.relkind = 'v'
        UNION ALL
        SELECT a.reader, d.refclassid, d.refobjid, d.refobjsubid
        FROM pg_class c JOIN pg_policy p ON p.polrelid = c.oid AND p.polcmd IN ('r', '*')
        JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid AND d.refobjid <> c.oid
        WHERE a.refclassid = 'pg_class'::regclass AND c.oid = a.refobjid AND c.relrowsecurity AND NOT EXISTS (
              SELECT FROM pg_roles o WHERE o.oid = a.reader AND (o.rolsuper OR o.rolbypassrls
                  OR pg_has_role(o.oid, c.relowner, 'USAGE') AND NOT c.relforcerowsecurity))
          AND EXISTS (SELECT FROM unnest(p.polroles) t (oid) WHERE t.oid = 0 OR pg_has_role(a.reader, t.oid, 'USAGE'))
        UNION ALL
        SELECT CASE WHEN f.prosecdef THEN f.proowner ELSE a.reader END, d.refclassid, d.refobjid, d.refobjsubid
        FROM pg_proc f JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = f.oid
        WHERE a.refclassid = 'pg_proc'::regclass AND f.oid = a.refobjid
    ) n
    WHERE n.refclassid IN ('pg_class'::regclass, 'pg_proc'::regclass)
), refused AS (
    SELECT reader, policy, format('SELECT (%s) ON %s', string_agg(DISTINCT quote_ident(t.attname), ', '), refobjid::regclass) AS missing
    FROM asked JOIN pg_attribute t ON t.attrelid = refobjid AND t.attnum = refobjsubid
    WHERE refclassid = 'pg_class'::regclass AND NOT has_column_privilege(reader, refobjid, refobjsubid::smallint, 'SELECT')
    GROUP BY reader, policy, refobjid
    UNION
    SELECT reader, policy, 'SELECT ON ' || refobjid::regclass FROM asked
    WHERE refclassid = 'pg_class'::regclass AND refobjsubid = 0 AND NOT has_any_column_privilege(reader, refobjid, 'SELECT')
    UNION
    SELECT reader, policy, 'EXECUTE ON FUNCTION ' || refobjid::regprocedure FROM asked
    WHERE refclassid = 'pg_proc'::regclass AND NOT has_function_privilege(reader, refobjid, 'EXECUTE')
), closed AS (
    SELECT a.policy, a.refobjid, string_agg(DISTINCT quote_ident(pg_get_userbyid(a.reader)), ', ') AS readers
    FROM asked a JOIN pg_class c ON c.oid = a.refobjid AND c.relkind IN ('r', 'p') JOIN pg_roles r ON r.oid = a.reader
    JOIN pg_roles k ON k.oid = a.client AND k.rolname IN ('anon', 'authenticated')
    WHERE a.refclassid = 'pg_class'::regclass
    GROUP BY a.policy, a.refobjid
    HAVING bool_and(c.relrowsecurity AND NOT r.rolsuper AND NOT r.rolbypassrls
        AND NOT (pg_has_role(r.oid, c.relowner, 'USAGE') AND NOT c.relforcerowsecurity)
        AND NOT EXISTS (SELECT FROM pg_policy p CROSS JOIN unnest(p.polroles) t (oid)
                        WHERE p.polrelid = c.oid AND p.polcmd IN ('r', '*') AND p.polpermissive
                          AND (t.oid = 0 OR pg_has_role(r.oid, t.oid, 'USAGE'))))
)
SELECT 'broken' AS verdict,
       format('the role %I lacks %s, which the policy %I on %s needs: it raises', pg_get_userbyid(f.reader), f.missing, p.polname,
              p.polrelid::regclass) AS what,
       CASE WHEN f.missing ~ '\mwebhook_urls\M.* ON realtime\.channels$' THEN 'name the columns in the policy (SELECT * reads all)'
            ELSE format('GRANT %s TO %I', f.missing, pg_get_userbyid(f.reader)) END AS advice
FROM refused f JOIN pg_policy p ON p.oid = f.policy
UNION ALL
SELECT 'broken',
       format('the policy %I on %s reads %s, whose row-level security shows nothing to %s: it never finds a row there', p.polname,
              p.polrelid::regclass, c.refobjid::regclass, c.readers),
       format('CREATE POLICY ... ON %s FOR SELECT TO %s USING (...); or have the policy ask a SECURITY DEFINER function',
              c.refobjid::regclass, c.readers)
FROM closed c JOIN pg_policy p ON p.oid = c.policy
ORDER BY what;

-- name: examine_secrets
-- Webhook URLs hold secrets: a grant on all of realtime.channels shows them to whoever may subscribe.
SELECT 'warning' AS verdict,
       format('the role %I may read the webhook_urls, which can hold secrets, of every channel that it may subscribe to%s', r.rolname,
              (SELECT format('; the policy %I on %s needs that', min(p.polname), min(p.polrelid::regclass::text))
               FROM pg_policy p JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid
               WHERE d.refobjid = u.attrelid AND d.refobjsubid = u.attnum AND p.polrelid <> u.attrelid HAVING count(*) > 0)) AS what,
       CASE WHEN pg_has_role(r.oid, c.relowner, 'USAGE') THEN format('REVOKE %I FROM %I', pg_get_userbyid(c.relowner), r.rolname)
            WHEN g.grantees IS NULL THEN format('REVOKE pg_read_all_data FROM %I', r.rolname)
            ELSE format('REVOKE SELECT ON realtime.channels FROM %s; GRANT SELECT (%s) ON realtime.channels TO %s', g.grantees,
                        (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute a
                         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attname <> 'webhook_urls'), g.grantees)
       END AS advice
FROM pg_roles r, pg_class c JOIN pg_attribute u ON u.attrelid = c.oid AND u.attname = 'webhook_urls', LATERAL (
    SELECT string_agg(DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END, ', ')
    FROM (SELECT * FROM aclexplode(c.relacl) UNION SELECT * FROM aclexplode(u.attacl)) a
    WHERE a.privilege_type = 'SELECT' AND (a.grantee = 0 OR pg_has_role(r.oid, a.grantee, 'USAGE'))) g (grantees)
WHERE c.oid = 'realtime.channels'::regclass AND r.rolname IN ('anon', 'authenticated')
  AND has_column_privilege(r.oid, c.oid, u.attnum, 'SELECT')
ORDER BY r.rolname;

-- name: examine_excess
-- What clients' roles should not have: policies restrain neither TRUNCATE nor sequences, and functions may speak as the system.
-- Functions that policies call must be callable, and a trigger function that is not SECURITY DEFINER can do nothing by itself.
SELECT 'warning' AS verdict, format('the role %s has %s: row-level security does not restrain that', r.rolname, n.excess) AS what,
       format('REVOKE %s FROM PUBLIC, %s', n.excess, r.rolname) AS advice
FROM pg_roles r, pg_class m, LATERAL (
    SELECT format('%s ON %s', p.privilege, c.oid::regclass), has_table_privilege(r.oid, c.oid, p.privilege)
    FROM pg_class c JOIN (VALUES ('TRUNCATE'), ('TRIGGER'), ('INSERT, UPDATE, DELETE')) p (privilege)
        ON p.privilege <> 'INSERT, UPDATE, DELETE' OR c.oid = to_regclass('realtime.schema_migrations')
    WHERE c.oid IN (to_regclass('realtime.channels'), to_regclass('realtime.messages'), to_regclass('realtime.webhook_deliveries'),
                    to_regclass('realtime.schema_migrations'))
    UNION ALL
    SELECT 'USAGE, UPDATE ON SEQUENCE ' || c.oid::regclass,
           CASE c.relkind WHEN 'S' THEN has_sequence_privilege(r.oid, c.oid, 'USAGE, UPDATE') ELSE false END
    FROM pg_class c WHERE c.relnamespace = 'realtime'::regnamespace AND c.relkind = 'S'
    UNION ALL
    SELECT 'EXECUTE ON FUNCTION ' || p.oid::regprocedure, has_function_privilege(r.oid, p.oid, 'EXECUTE')
    FROM pg_proc p
    WHERE p.pronamespace = 'realtime'::regnamespace AND p.prokind = 'f' AND p.proname NOT IN ('channel_name', 'literal_prefix')
      AND p.oid NOT IN (SELECT to_regprocedure(open.name) FROM (VALUES -- these call publish(jsonb), with their caller's rights
          ('realtime.publish(text, text, json)'), ('realtime.publish(text, text, text)'), ('realtime.refuse_text()')) open (name)
          WHERE to_regprocedure(open.name) IS NOT NULL)
      AND (p.prosecdef OR p.prorettype <> 'trigger'::regtype)
      AND (p.proname = 'publish' OR NOT EXISTS (
          SELECT FROM pg_depend d WHERE d.classid = 'pg_policy'::regclass AND d.refclassid = 'pg_proc'::regclass AND d.refobjid = p.oid))
) n (excess, held)
WHERE m.oid = 'realtime.messages'::regclass AND r.rolname IN ('anon', 'authenticated')
  AND n.held AND NOT pg_has_role(r.oid, m.relowner, 'USAGE')
ORDER BY r.rolname, n.excess;

-- name: examine_members
-- The owner's rights are not restrained by policies; nor are a superuser's, or those of whoever bypasses them.
SELECT 'warning' AS verdict, format('the role %I %s: no policy restrains it', r.rolname, h.what) AS what, h.advice
FROM pg_class m, pg_roles r, LATERAL (VALUES
    (r.rolsuper, 'is a superuser', format('ALTER ROLE %I NOSUPERUSER', r.rolname)),
    (r.rolbypassrls, 'bypasses row-level security', format('ALTER ROLE %I NOBYPASSRLS', r.rolname)),
    (NOT r.rolsuper AND pg_has_role(r.oid, m.relowner, 'USAGE'), format('is a member of %I, the owner of realtime.messages',
     pg_get_userbyid(m.relowner)), format('REVOKE %I FROM %I', pg_get_userbyid(m.relowner), r.rolname))
) h (is_so, what, advice)
WHERE m.oid = 'realtime.messages'::regclass AND r.rolname IN ('anon', 'authenticated') AND h.is_so
ORDER BY r.rolname;
