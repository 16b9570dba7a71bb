"""What another realtime server of this family has: the columns are the same, the delivery is a NOTIFY for each row."""

from __future__ import annotations

INCUMBENT = """
DO $$ BEGIN CREATE ROLE anon; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
DO $$ BEGIN CREATE ROLE authenticated; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
DO $$ BEGIN CREATE ROLE project_admin; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
CREATE SCHEMA auth;
GRANT USAGE ON SCHEMA auth TO PUBLIC;
CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS
    $$ SELECT nullif(current_setting('request.jwt.claim.sub', true), '')::uuid $$;
CREATE FUNCTION auth.role() RETURNS text LANGUAGE sql STABLE AS $$ SELECT 'theirs'::text $$;
CREATE FUNCTION auth.email() RETURNS text LANGUAGE sql STABLE AS $$ SELECT 'theirs'::text $$;

CREATE SCHEMA realtime;
CREATE TABLE realtime.channels (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), pattern text UNIQUE NOT NULL, description text, webhook_urls text[],
    enabled boolean DEFAULT true NOT NULL, created_at timestamptz DEFAULT now(), updated_at timestamptz DEFAULT now()
);
CREATE TABLE realtime.messages (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), event_name text NOT NULL,
    channel_id uuid REFERENCES realtime.channels (id) ON DELETE SET NULL, channel_name text NOT NULL,
    payload jsonb DEFAULT '{}' NOT NULL,
    sender_type text DEFAULT 'system' NOT NULL CHECK (sender_type IN ('system', 'user')),
    sender_id uuid, ws_audience_count integer DEFAULT 0 NOT NULL, wh_audience_count integer DEFAULT 0 NOT NULL,
    wh_delivered_count integer DEFAULT 0 NOT NULL, created_at timestamptz DEFAULT now()
);
CREATE INDEX idx_realtime_channels_pattern ON realtime.channels (pattern);
CREATE INDEX idx_realtime_channels_enabled ON realtime.channels (enabled);
CREATE INDEX idx_realtime_messages_channel_id ON realtime.messages (channel_id);
CREATE INDEX idx_realtime_messages_channel_name ON realtime.messages (channel_name);
CREATE INDEX idx_realtime_messages_created_at ON realtime.messages (created_at DESC);
CREATE INDEX idx_realtime_messages_event_name ON realtime.messages (event_name);
CREATE INDEX idx_realtime_messages_sender ON realtime.messages (sender_type, sender_id);

CREATE FUNCTION realtime.channel_name() RETURNS text LANGUAGE sql STABLE AS
    $$ SELECT current_setting('realtime.channel_name', true) $$;
CREATE FUNCTION realtime.publish(p_channel_name text, p_event_name text, p_payload jsonb) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE found uuid; made uuid;
BEGIN
    SELECT id INTO found FROM realtime.channels WHERE enabled AND p_channel_name LIKE pattern LIMIT 1;
    INSERT INTO realtime.messages (event_name, channel_id, channel_name, payload)
    VALUES (p_event_name, found, p_channel_name, p_payload) RETURNING id INTO made;
    RETURN made;
END $$;
GRANT EXECUTE ON FUNCTION realtime.publish(text, text, jsonb) TO authenticated;
CREATE FUNCTION realtime.notify_on_message_insert() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_notify('realtime_message', NEW.id::text); RETURN NEW; END $$;
CREATE FUNCTION realtime.touch() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN NEW.updated_at := now(); RETURN NEW; END $$;
CREATE TRIGGER trg_message_notify AFTER INSERT ON realtime.messages
    FOR EACH ROW EXECUTE FUNCTION realtime.notify_on_message_insert();
CREATE TRIGGER trg_channels_updated_at BEFORE UPDATE ON realtime.channels
    FOR EACH ROW EXECUTE FUNCTION realtime.touch();
CREATE POLICY some_read ON realtime.channels FOR SELECT TO authenticated USING (pattern = 'room:%');
CREATE POLICY some_write ON realtime.messages FOR INSERT TO authenticated WITH CHECK (channel_name LIKE 'room:%');

INSERT INTO realtime.channels (pattern, webhook_urls, created_at) VALUES
    ('room:%', ARRAY['https://example.com/hook'], NULL), ('off', NULL, '2024-01-02'), ('odd\\', NULL, now());
INSERT INTO realtime.messages
    (event_name, channel_id, channel_name, payload, sender_type, sender_id, ws_audience_count, created_at)
SELECT 'said', (SELECT id FROM realtime.channels WHERE pattern = 'room:%'), 'room:' || i % 7, jsonb_build_object('n', i),
       CASE WHEN i % 2 = 0 THEN 'user' ELSE 'system' END, CASE WHEN i % 2 = 0 THEN gen_random_uuid() END, i % 5,
       CASE WHEN i % 11 > 0 THEN '2024-01-01'::timestamptz + i * interval '1 second' END
FROM generate_series(1, 5000) AS i;
"""
