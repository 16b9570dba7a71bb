-- The queue of webhook deliveries. How a migration is written is told in 0001_tables.sql.
--
-- A delivery is one message for one URL. It is `pending` until it is `delivered`, `failed` (no more attempts) or
-- `cancelled` (by hand). While a server sends it, `lease` is that server's token and `next_attempt_at` the end of its lease:
-- so "due" is one condition, whether a delivery is new, waits for its next attempt, or was left behind by a killed server.

--: stop: a table realtime.webhook_deliveries exists that is not ours
--? EXISTS (SELECT FROM pg_class c WHERE c.oid = to_regclass('realtime.webhook_deliveries') AND (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname IN ('message_id', 'url', 'host', 'state', 'attempts', 'next_attempt_at', 'lease', 'history')) < 8)
DO $$ BEGIN RAISE 'realtime.webhook_deliveries lacks columns this server needs: rename or drop it'; END $$;

--: create the table realtime.webhook_deliveries, with row-level security
--? to_regclass('realtime.webhook_deliveries') IS NULL
--! GRANT USAGE, CREATE ON SCHEMA realtime TO {user}
CREATE TABLE realtime.webhook_deliveries (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message_id       uuid NOT NULL REFERENCES realtime.messages (id) ON DELETE CASCADE,
    url              text NOT NULL,
    host             text COLLATE "C" NOT NULL,
    state            text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'failed', 'cancelled')),
    attempts         integer NOT NULL DEFAULT 0,
    next_attempt_at  timestamptz NOT NULL DEFAULT now(),
    lease            bigint,
    last_status_code integer,
    last_error       text,
    last_response    text,
    history          jsonb NOT NULL DEFAULT '[]',
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now()
);
-- A queue: the rows that are done stay, so a fifth of the table would be a long time to wait for the vacuum.
ALTER TABLE realtime.webhook_deliveries SET (autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE realtime.webhook_deliveries ENABLE ROW LEVEL SECURITY;
REVOKE ALL ON realtime.webhook_deliveries FROM PUBLIC, anon, authenticated;
CREATE POLICY project_admin_policy ON realtime.webhook_deliveries FOR SELECT TO project_admin USING (true);
GRANT SELECT ON realtime.webhook_deliveries TO project_admin;

--: create the index webhook_deliveries_due_idx, by which the next deliveries of each host are found
--? to_regclass('realtime.webhook_deliveries_due_idx') IS NULL
CREATE INDEX webhook_deliveries_due_idx ON realtime.webhook_deliveries (host, next_attempt_at) WHERE state = 'pending';

--: create the index webhook_deliveries_message_id_idx
--? to_regclass('realtime.webhook_deliveries_message_id_idx') IS NULL
CREATE INDEX webhook_deliveries_message_id_idx ON realtime.webhook_deliveries (message_id);
