-- What pg/migrate.py asks before it does anything, by name; as in queries.sql.

-- name: migrate_lacks
-- Everything at once that this role lacks for the migration, in the order in which an administrator can give it. Asked of the catalog
-- alone, which needs no rights. $1 are the functions that are put in place (name/arguments); $2 whether tables have to be changed, $3
-- whether nothing was migrated here before.
WITH me AS (
    SELECT r.oid, quote_ident(r.rolname) AS name, r.rolcreaterole AS creates,
           CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'MEMBER' ELSE 'SET' END AS becoming
    FROM pg_roles r WHERE r.rolname = current_user AND NOT r.rolsuper
), wanted AS (
    SELECT w.name, w.place, r.oid FROM unnest('{anon, authenticated, project_admin}'::text[]) WITH ORDINALITY w (name, place)
    LEFT JOIN pg_roles r ON r.rolname = w.name
), ours AS (
    SELECT n.oid, pg_has_role(me.oid, n.nspowner, 'USAGE') AS owned FROM pg_namespace n, me WHERE n.nspname = 'realtime'
), lacks (place, cure) AS (
    SELECT 10 + w.place, format('CREATE ROLE %I NOLOGIN', w.name) FROM wanted w, me WHERE w.oid IS NULL AND NOT me.creates
    UNION ALL
    SELECT 20, format('GRANT %s TO %s', string_agg(quote_ident(w.name), ', ' ORDER BY w.place), me.name)
    FROM wanted w, me
    WHERE CASE WHEN w.oid IS NULL THEN NOT me.creates ELSE NOT (
        pg_has_role(me.oid, w.oid, me.becoming) OR pg_has_role(me.oid, w.oid, 'MEMBER WITH ADMIN OPTION')
        OR me.creates AND me.becoming = 'MEMBER' AND NOT (SELECT rolsuper FROM pg_roles WHERE oid = w.oid)) END
    GROUP BY me.name
    UNION ALL
    SELECT 30, format('GRANT CREATE ON DATABASE %I TO %s', current_database(), me.name) FROM me
    WHERE NOT has_database_privilege(me.oid, current_database(), 'CREATE')
      AND (SELECT count(*) FROM pg_namespace WHERE nspname IN ('realtime', 'auth')) < 2
    UNION ALL
    SELECT 40, format('GRANT USAGE%s ON SCHEMA auth TO %s', CASE WHEN f.missing THEN ', CREATE' END, me.name)
    FROM me, pg_namespace n, LATERAL (
        SELECT count(*) < 4 FROM pg_proc p WHERE p.pronamespace = n.oid AND p.pronargs = 0 AND p.proname IN ('jwt', 'uid', 'role', 'email')
    ) f (missing)
    WHERE n.nspname = 'auth' AND $3::boolean
      AND NOT (has_schema_privilege(me.oid, n.oid, 'USAGE') AND (NOT f.missing OR has_schema_privilege(me.oid, n.oid, 'CREATE')))
    UNION ALL
    SELECT 50, format(CASE WHEN $3::boolean THEN 'ALTER SCHEMA realtime OWNER TO %s' ELSE 'GRANT USAGE, CREATE ON SCHEMA realtime TO %s' END,
                      me.name)
    FROM me, ours
    WHERE NOT (has_schema_privilege(me.oid, ours.oid, 'USAGE') AND has_schema_privilege(me.oid, ours.oid, 'CREATE'))
    UNION ALL
    SELECT 60, format('GRANT SELECT, INSERT ON realtime.schema_migrations TO %s', me.name)
    FROM me, ours JOIN pg_class c ON c.relnamespace = ours.oid AND c.relname = 'schema_migrations'
    WHERE NOT (has_table_privilege(me.oid, c.oid, 'SELECT') AND (NOT $2::boolean OR has_table_privilege(me.oid, c.oid, 'INSERT')))
    UNION ALL
    SELECT 70, format('ALTER TABLE realtime.%I OWNER TO %s', c.relname, me.name)
    FROM me, ours JOIN pg_class c ON c.relnamespace = ours.oid AND c.relname IN ('channels', 'messages', 'webhook_deliveries', 'limits')
    WHERE $2::boolean AND NOT pg_has_role(me.oid, c.relowner, 'USAGE')
    UNION ALL
    SELECT 80, format('ALTER FUNCTION realtime.%I(%s) OWNER TO %s', p.proname, oidvectortypes(p.proargtypes), me.name)
    FROM me, ours JOIN pg_proc p ON p.pronamespace = ours.oid AND p.prokind = 'f'
    WHERE concat(p.proname, '/', p.pronargs) = ANY ($1::text[]) AND NOT pg_has_role(me.oid, p.proowner, 'USAGE')
)
SELECT cure FROM lacks ORDER BY place, cure;
