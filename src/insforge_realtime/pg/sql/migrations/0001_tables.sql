-- Tables, roles, indexes and grants. Applied once, in one transaction.
--
-- A migration is a list of steps. `--: text` begins a step and says what it does, in the words that `migrate` prints;
-- `--? condition` is a SQL expression that tells whether it is needed here. So an empty database, a Supabase-like one
-- and the incumbent's take the same file, and `migrate --dry-run` reads the conditions without changing anything.
-- All of them are read before the first step of any migration runs. `--@ table` is one that the step needs for itself alone (ACCESS
-- EXCLUSIVE): all of these are locked before the first step runs. `--! cure` is what an administrator can do where we are not
-- allowed to.
-- Roles belong to the whole cluster: a migrator of another database may create the same ones at the same time.

--: stop: a table realtime.channels or realtime.messages exists that lacks columns this server needs
--? EXISTS (SELECT FROM (VALUES ('channels', 'id pattern enabled webhook_urls'), ('messages', 'id event_name channel_id channel_name payload sender_type sender_id ws_audience_count wh_audience_count wh_delivered_count created_at')) t (name, columns), regexp_split_to_table(columns, ' ') AS col WHERE EXISTS (SELECT FROM pg_class WHERE relnamespace = to_regnamespace('realtime') AND relname = t.name) AND NOT EXISTS (SELECT FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid WHERE c.relnamespace = to_regnamespace('realtime') AND c.relname = t.name AND a.attname = col))
-- Functions are bound late: without this, the first publish would be what fails.
DO $$ BEGIN RAISE 'realtime.channels or realtime.messages lacks columns this server needs: it is not a table that can be adopted'; END $$;

--: create the role anon
--? NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'anon')
--! CREATE ROLE anon NOLOGIN; GRANT anon TO {user}
DO $$ BEGIN CREATE ROLE anon NOLOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;

--: create the role authenticated
--? NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'authenticated')
--! CREATE ROLE authenticated NOLOGIN; GRANT authenticated TO {user}
DO $$ BEGIN CREATE ROLE authenticated NOLOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;

--: create the role project_admin
--? NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'project_admin')
--! CREATE ROLE project_admin NOLOGIN; GRANT project_admin TO {user}
DO $$ BEGIN CREATE ROLE project_admin NOLOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;

-- A superuser may be anyone. For others, PostgreSQL 16 made SET ROLE an option of the membership: whoever creates a role
-- is a member with ADMIN but without SET. (The condition has to be one line.)
--: make this user a member of anon
--? NOT coalesce((SELECT rolsuper FROM pg_roles WHERE rolname = current_user) OR (SELECT pg_has_role(oid, CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'MEMBER' ELSE 'SET' END) FROM pg_roles WHERE rolname = 'anon'), false)
--! GRANT anon TO {user}
DO $$ BEGIN GRANT anon TO CURRENT_USER; EXCEPTION WHEN unique_violation THEN NULL; END $$;

--: make this user a member of authenticated
--? NOT coalesce((SELECT rolsuper FROM pg_roles WHERE rolname = current_user) OR (SELECT pg_has_role(oid, CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'MEMBER' ELSE 'SET' END) FROM pg_roles WHERE rolname = 'authenticated'), false)
--! GRANT authenticated TO {user}
DO $$ BEGIN GRANT authenticated TO CURRENT_USER; EXCEPTION WHEN unique_violation THEN NULL; END $$;

--: make this user a member of project_admin
--? NOT coalesce((SELECT rolsuper FROM pg_roles WHERE rolname = current_user) OR (SELECT pg_has_role(oid, CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'MEMBER' ELSE 'SET' END) FROM pg_roles WHERE rolname = 'project_admin'), false)
--! GRANT project_admin TO {user}
DO $$ BEGIN GRANT project_admin TO CURRENT_USER; EXCEPTION WHEN unique_violation THEN NULL; END $$;

--: create the schema auth
--? to_regnamespace('auth') IS NULL
--! GRANT CREATE ON DATABASE {database} TO {user}
CREATE SCHEMA auth;
GRANT USAGE ON SCHEMA auth TO anon, authenticated, project_admin;

--: create the function auth.jwt(): the claims of whoever asks
--? to_regprocedure('auth.jwt()') IS NULL
--! GRANT USAGE, CREATE ON SCHEMA auth TO {user}
CREATE FUNCTION auth.jwt() RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT nullif(current_setting('request.jwt.claims', true), '')::jsonb
$$;

--: create the function auth.uid(): the claim sub, NULL where it is not a uuid
--? to_regprocedure('auth.uid()') IS NULL
--! GRANT USAGE, CREATE ON SCHEMA auth TO {user}
CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
            ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
        THEN (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid
    END
$$;

--: create the function auth.role(): the claim role
--? to_regprocedure('auth.role()') IS NULL
--! GRANT USAGE, CREATE ON SCHEMA auth TO {user}
CREATE FUNCTION auth.role() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role'
$$;

--: create the function auth.email(): the claim email
--? to_regprocedure('auth.email()') IS NULL
--! GRANT USAGE, CREATE ON SCHEMA auth TO {user}
CREATE FUNCTION auth.email() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'email'
$$;

--: create the schema realtime
--? to_regnamespace('realtime') IS NULL
--! GRANT CREATE ON DATABASE {database} TO {user}
CREATE SCHEMA realtime;

--: create the table realtime.channels, with row-level security
--? to_regclass('realtime.channels') IS NULL
--! GRANT USAGE, CREATE ON SCHEMA realtime TO {user}
CREATE TABLE realtime.channels (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    pattern      text NOT NULL UNIQUE,
    description  text,
    webhook_urls text[],
    enabled      boolean NOT NULL DEFAULT true,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE realtime.channels ENABLE ROW LEVEL SECURITY;
CREATE POLICY project_admin_policy ON realtime.channels TO project_admin USING (true) WITH CHECK (true);

--: create the table realtime.messages, with row-level security
--? to_regclass('realtime.messages') IS NULL
--! GRANT USAGE, CREATE ON SCHEMA realtime TO {user}
CREATE TABLE realtime.messages (
    id                 uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    event_name         text NOT NULL,
    channel_id         uuid REFERENCES realtime.channels (id) ON DELETE SET NULL,
    channel_name       text NOT NULL,
    payload            jsonb NOT NULL DEFAULT '{}',
    sender_type        text NOT NULL DEFAULT 'system' CHECK (sender_type IN ('system', 'user')),
    sender_id          uuid,
    ws_audience_count  integer NOT NULL DEFAULT 0,
    wh_audience_count  integer NOT NULL DEFAULT 0,
    wh_delivered_count integer NOT NULL DEFAULT 0,
    created_at         timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE realtime.messages ENABLE ROW LEVEL SECURITY;
CREATE POLICY project_admin_policy ON realtime.messages TO project_admin USING (true) WITH CHECK (true);

--: add the columns seq and xid to realtime.messages (rewrites the table once; no row is changed otherwise)
--? NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('realtime.messages') AND attname = 'seq')
--@ realtime.messages
--! ALTER TABLE realtime.channels OWNER TO {user}; ALTER TABLE realtime.messages OWNER TO {user}; and GRANT USAGE, CREATE ON SCHEMA realtime TO {user}
-- xid: the rows that are there already were delivered long ago, so they get a transaction before all others.
ALTER TABLE realtime.messages
    ADD COLUMN seq bigint GENERATED ALWAYS AS IDENTITY,
    ADD COLUMN xid xid8 NOT NULL DEFAULT '0';
ALTER TABLE realtime.messages ALTER COLUMN xid SET DEFAULT pg_current_xact_id();

--: leave room in the pages of realtime.messages, so that the counters are updated in place
--? NOT EXISTS (SELECT FROM pg_class WHERE oid = to_regclass('realtime.messages') AND reloptions::text LIKE '%fillfactor%')
ALTER TABLE realtime.messages SET (fillfactor = 85);

--: create the index messages_xid_idx, by which the feed finds what is new
--? to_regclass('realtime.messages_xid_idx') IS NULL
CREATE INDEX messages_xid_idx ON realtime.messages (xid);

--: create the index messages_seq_idx
--? to_regclass('realtime.messages_seq_idx') IS NULL
CREATE UNIQUE INDEX messages_seq_idx ON realtime.messages (seq);

--: create the index messages_channel_id_seq_idx
--? to_regclass('realtime.messages_channel_id_seq_idx') IS NULL
CREATE INDEX messages_channel_id_seq_idx ON realtime.messages (channel_id, seq);

--: drop the trigger trg_message_notify: one NOTIFY per row (the other server, if it still runs, stops delivering)
--? EXISTS (SELECT FROM pg_trigger WHERE tgrelid = to_regclass('realtime.messages') AND tgname = 'trg_message_notify')
--@ realtime.messages
DROP TRIGGER trg_message_notify ON realtime.messages;

--: refuse patterns that LIKE cannot read (empty, or ending in a lone backslash) from now on
--? NOT EXISTS (SELECT FROM pg_constraint WHERE conrelid = to_regclass('realtime.channels') AND conname = 'channels_pattern_check')
--@ realtime.channels
ALTER TABLE realtime.channels ADD CONSTRAINT channels_pattern_check
    CHECK (pattern <> '' AND pattern !~ '(^|[^\\])(\\\\)*\\$') NOT VALID;

--: create the doorbell: the sequences realtime.asleep and realtime.rung
--? to_regclass('realtime.asleep') IS NULL
CREATE SEQUENCE realtime.asleep;
CREATE SEQUENCE realtime.rung;

--: let the three roles use realtime.channels and realtime.messages, as far as policies allow
--? true
GRANT USAGE ON SCHEMA realtime TO anon, authenticated, project_admin;
GRANT SELECT ON realtime.channels TO anon, authenticated;
GRANT INSERT ON realtime.messages TO anon, authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON realtime.channels TO project_admin;
GRANT SELECT, INSERT ON realtime.messages TO project_admin;
