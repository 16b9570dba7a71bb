-- What a migration asks and writes down beside its steps, which are in ../migrations and ../triggers.sql. For pg/migrate.py and
-- pg/patience.py, in sessions whose search_path is pg_catalog.

-- name: migrate_limits
-- For one transaction: no time limits (those that this version of PostgreSQL knows), and names that mean what they say.
SELECT set_config(name, CASE name WHEN 'search_path' THEN 'pg_catalog, pg_temp' WHEN 'client_min_messages' THEN 'warning' ELSE '0' END, true)
FROM pg_settings WHERE name IN (
    'statement_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout', 'search_path', 'client_min_messages');

-- name: lock_shortly
-- For one transaction: wait $1 seconds for a lock, or, where $2 is not 0, $2 seconds longer than deadlock_timeout. Gives the backend.
SELECT pg_backend_pid() FROM set_config('lock_timeout', (1000 * CASE WHEN $2::float8 = 0 THEN $1::float8
    ELSE $2 + extract(epoch FROM current_setting('deadlock_timeout')::interval) END)::integer::text, true);

-- name: lock_migrations
-- Wait for other migrations of this database, and keep them waiting until the end of the transaction; $1 is the lock's number.
SELECT pg_advisory_xact_lock($1);

-- name: may_lock
-- Whether table $1 exists, and is one that we may lock.
SELECT EXISTS (SELECT FROM pg_class WHERE oid = to_regclass($1::text) AND has_table_privilege(oid, 'UPDATE'));

-- name: lock_table
-- Have the table $1 to ourselves until the end of the transaction. (Its name is put in as text.)
LOCK TABLE $1 IN ACCESS EXCLUSIVE MODE;

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

-- name: was_migrated
-- Whether there is a book of what was applied.
SELECT to_regclass('realtime.schema_migrations') IS NOT NULL;

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

-- name: is_needed
-- Whether a step is needed: its condition, put in as text.
SELECT $1;

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

-- name: tables_without_rls
-- Which of our tables anybody with a grant may use, because row-level security is off.
SELECT c.oid::regclass::text AS name FROM pg_class c
WHERE c.oid IN (to_regclass('realtime.channels'), to_regclass('realtime.messages')) AND NOT c.relrowsecurity
ORDER BY 1;

-- name: auth_uid_exists
-- Whether there is an auth.uid(), found without any right to the schema.
SELECT EXISTS (SELECT FROM pg_proc WHERE pronamespace = to_regnamespace('auth') AND proname = 'uid' AND pronargs = 0);

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
