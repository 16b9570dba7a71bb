-- What `check` asks about the PostgreSQL server, the database and the settings of our sessions, whatever is in them. For
-- pg/check/; see check.sql.

-- name: examine_who
-- Whom and what the server has to do with.
SELECT current_user AS me, quote_ident(current_user) AS quoted, current_setting('server_version') AS version,
       current_setting('server_version_num')::int AS number;

-- name: examine_encoding
-- Messages are JSON, which may hold any character. (In ASCII, or another encoding could not even take the question.)
SELECT 'broken' AS verdict,
       format('the database is encoded in %s, not in UTF8: it cannot hold every message', current_setting('server_encoding')) AS what,
       'move it (pg_dump, pg_restore) into a database made with TEMPLATE template0 ENCODING ''UTF8''' AS advice
WHERE current_setting('server_encoding') <> 'UTF8';

-- name: examine_standby
-- A standby can neither be published to nor listened on.
SELECT 'broken' AS verdict, 'the database is a standby, which is read-only: nothing can be published or heard' AS what,
       'set DATABASE_URL to the primary (with several hosts in it: &target_session_attrs=read-write)' AS advice
WHERE pg_is_in_recovery();

-- name: examine_settings
-- Defaults of this role, database or server under which a session like the server's does not work, or not as promised. They are
-- read as they hold here, so one that the server overrides in its sessions does not count. (Setting, when it hurts, what it does, cure.)
SELECT h.verdict, format('%s is %s for the server: %s', h.name, s.setting, h.meaning) AS what,
       CASE WHEN s.context = 'sighup' THEN format('ALTER SYSTEM SET %s = %L; SELECT pg_reload_conf()', h.name, h.good)
            ELSE CASE h.name WHEN 'transaction_read_only' THEN 'SET default_transaction_read_only = off; ' ELSE '' END
              || format('ALTER ROLE %I IN DATABASE %I SET %s = %L', session_user, current_database(),
                        replace(h.name, 'transaction_', 'default_transaction_'), h.good) END AS advice
FROM (VALUES
    ('row_security', 'off', 'broken', 'PostgreSQL refuses what policies would judge, so nobody may subscribe or publish', 'on'),
    ('transaction_read_only', 'on', 'broken', 'nothing can be published', 'off'),
    ('session_replication_role', 'replica', 'broken', 'triggers do not fire, so no client can publish', 'origin'),
    ('standard_conforming_strings', 'off', 'broken', 'the functions of the schema realtime cannot be read', 'on'),
    ('transaction_isolation', 'serializable', 'warning', 'what meets other writers fails with serialization errors', 'read committed'),
    ('transaction_isolation', 'repeatable read', 'warning', 'what meets other writers fails with serialization errors', 'read committed'),
    ('synchronous_commit', 'off', 'warning',
     'a crash of PostgreSQL can lose the messages of its last moments, also those whose senders were told that they are published',
     'on'),
    ('fsync', 'off', 'warning', 'a crash of the machine can lose any message, and damage the database', 'on')
) h (name, hurts, verdict, meaning, good)
JOIN pg_settings s ON s.name = h.name AND s.setting = h.hurts;

-- name: examine_limits
-- What keeps one check from hanging, for the length of its transaction.
SELECT set_config('statement_timeout', '5s', true), set_config('lock_timeout', '5s', true);

-- name: examine_become
-- Act as the role $1 until the end of the transaction.
SELECT set_config('role', $1, true);

-- name: examine_clock
-- The database's clock, in seconds since 1970.
SELECT extract(epoch FROM clock_timestamp())::float8;

-- name: examine_ring
-- A notification on the channel $1.
SELECT pg_notify($1, '');

-- name: examine_backend
-- Which server process answers.
SELECT pg_backend_pid();

-- name: examine_remember
-- A setting of this session, to be read back later.
SELECT set_config('realtime.check', $1, false);

-- name: examine_recall
-- Whether the session still is the one that $1 was told to.
SELECT current_setting('realtime.check', true) = $1;
