-- The incumbent's side of the database, in our own words: its tables, its publish function, a NOTIFY for each row. It is a
-- database of its own on the same PostgreSQL; the roles are there already. There is no index that its pipeline does not use.

-- What policies call.
CREATE SCHEMA auth;
CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS $$
    SELECT (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid
$$;
CREATE SCHEMA realtime;
CREATE FUNCTION realtime.channel_name() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT nullif(current_setting('realtime.channel_name', true), '')
$$;
GRANT USAGE ON SCHEMA auth, realtime TO anon, authenticated;

-- Channels, and who may hear them.
CREATE TABLE realtime.channels (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    pattern      text NOT NULL UNIQUE,
    webhook_urls text[],
    enabled      boolean NOT NULL DEFAULT true
);
ALTER TABLE realtime.channels ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON realtime.channels TO anon, authenticated;

-- Messages, and who may write them.
CREATE TABLE realtime.messages (
    id                 uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    event_name         text NOT NULL,
    channel_id         uuid REFERENCES realtime.channels (id) ON DELETE SET NULL,
    channel_name       text NOT NULL,
    payload            jsonb NOT NULL DEFAULT '{}',
    sender_type        text NOT NULL DEFAULT 'system',
    sender_id          uuid,
    ws_audience_count  integer NOT NULL DEFAULT 0,
    wh_audience_count  integer NOT NULL DEFAULT 0,
    wh_delivered_count integer NOT NULL DEFAULT 0,
    created_at         timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE realtime.messages ENABLE ROW LEVEL SECURITY;
GRANT INSERT ON realtime.messages TO anon, authenticated;

-- Publish as the system: find the channel, insert.
CREATE FUNCTION realtime.publish(p_channel_name text, p_event_name text, p_payload jsonb)
RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_channel uuid;
    v_id uuid;
BEGIN
    SELECT id INTO v_channel FROM realtime.channels
    WHERE enabled AND (pattern = p_channel_name OR p_channel_name LIKE pattern)
    ORDER BY pattern = p_channel_name DESC LIMIT 1;
    IF v_channel IS NULL THEN
        RETURN NULL;
    END IF;
    INSERT INTO realtime.messages (event_name, channel_id, channel_name, payload)
    VALUES (p_event_name, v_channel, p_channel_name, p_payload) RETURNING id INTO v_id;
    RETURN v_id;
END
$$;

-- The NOTIFY: one for each row, with its id.
CREATE FUNCTION realtime.notify_message() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    PERFORM pg_notify('incumbent', NEW.id::text);
    RETURN NULL;
END
$$;
CREATE TRIGGER notify_message AFTER INSERT ON realtime.messages
FOR EACH ROW EXECUTE FUNCTION realtime.notify_message();
