-- Who may read realtime.channels.webhook_urls: such URLs hold secrets, and a grant on the table shows them to whoever may
-- subscribe. How a migration is written is told in 0001_tables.sql.
--
-- Nothing that works may stop: a policy of another table that reads webhook_urls (SELECT * does) asks as the client, and would
-- raise. There the grants stay, and `check` names that policy. The policies of realtime.channels itself need no grant on the
-- columns of their own row.

--: let PUBLIC, anon and authenticated read every column of realtime.channels but webhook_urls (whatever they were granted there)
--? NOT EXISTS (SELECT FROM pg_depend d JOIN pg_policy p ON p.oid = d.objid JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid WHERE d.classid = 'pg_policy'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = to_regclass('realtime.channels') AND p.polrelid <> d.refobjid AND a.attname = 'webhook_urls')
--! ALTER TABLE realtime.channels OWNER TO {user}
-- Each keeps what it had, less one column: policies of other tables may read columns that an adopted table has and ours has not.
DO $$
DECLARE
    v_columns text := (
        SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
        WHERE attrelid = 'realtime.channels'::regclass AND attnum > 0 AND NOT attisdropped AND attname <> 'webhook_urls');
    v_grantee text;
BEGIN
    FOR v_grantee IN
        SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END
        FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid = 'realtime.channels'::regclass AND a.privilege_type = 'SELECT' AND a.grantee <> c.relowner
          AND (a.grantee = 0 OR pg_get_userbyid(a.grantee) IN ('anon', 'authenticated'))
    LOOP
        EXECUTE format('REVOKE SELECT ON realtime.channels FROM %s CASCADE', v_grantee);
        EXECUTE format('GRANT SELECT (%s) ON realtime.channels TO %s', v_columns, v_grantee);
    END LOOP;
    REVOKE SELECT (webhook_urls) ON realtime.channels FROM PUBLIC, anon, authenticated CASCADE;
END
$$;

--: leave realtime.channels.webhook_urls readable for clients: a policy of another table reads it (see `check`)
--? EXISTS (SELECT FROM pg_depend d JOIN pg_policy p ON p.oid = d.objid JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid WHERE d.classid = 'pg_policy'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = to_regclass('realtime.channels') AND p.polrelid <> d.refobjid AND a.attname = 'webhook_urls')
SELECT;
