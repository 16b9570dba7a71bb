-- Every function of the schema `realtime`. Re-applied by each `migrate`, in the migration's transaction: that takes no lock on a
-- table. The triggers that call some of them are in triggers.sql.
--
-- The owner of realtime.messages owns these too, and is the role that the server connects as: SECURITY DEFINER means
-- "as the server" below. Signatures that applications know (publish, channel_name) never change.

-- The channel that a policy is asked about. '' is what a setting reads as once its transaction has ended.
CREATE OR REPLACE FUNCTION realtime.channel_name() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT nullif(current_setting('realtime.channel_name', true), '')
$$;

-- How many characters of a pattern stand for themselves.
CREATE OR REPLACE FUNCTION realtime.count_literals(p_pattern text) RETURNS integer LANGUAGE sql IMMUTABLE AS $$
    SELECT length(translate(
        CASE WHEN strpos(p_pattern, '\') = 0 THEN p_pattern ELSE regexp_replace(p_pattern, '\\(.)', '.', 'g') END, '%_', ''))
$$;

-- The pattern that a name belongs to, among thousands: by the index on their literal prefixes, with all that the name begins
-- with. The plan is made once, for any name: made for each, it would cost several times what it finds.
CREATE OR REPLACE FUNCTION realtime.find_pattern(p_name text) RETURNS realtime.channels LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_found realtime.channels;
BEGIN
    SELECT id, webhook_urls INTO v_found.id, v_found.webhook_urls FROM realtime.channels
    WHERE realtime.literal_prefix(pattern) COLLATE "C" = ANY (ARRAY (SELECT left(p_name, n) FROM generate_series(0, length(p_name)) n))
      AND enabled AND pattern ~ '[%_\\]' AND p_name LIKE pattern
    ORDER BY realtime.count_literals(pattern) DESC, pattern COLLATE "C" LIMIT 1;
    RETURN v_found;
END
$$;

-- The one channel row that a name belongs to: enabled; an exact match first, else the pattern with the most literal
-- characters, ties by pattern. Subscribe, publish and webhooks all go by this row: if any matching row could let
-- someone in, a public `chat:%` would open a private `chat:vip:%`. plpgsql, because its plans are kept.
-- A table of one page (about a hundred rows) is read as a whole, which costs less than any index; a larger one by index.
-- Only the columns that publish() needs are filled: sorting whole rows costs more than all the rest.
CREATE OR REPLACE FUNCTION realtime.find_channel(p_name text) RETURNS realtime.channels LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_found realtime.channels;
BEGIN
    IF pg_relation_size('realtime.channels'::regclass) <= 8192 THEN
        SELECT id, webhook_urls INTO v_found.id, v_found.webhook_urls FROM realtime.channels
        WHERE enabled AND (p_name LIKE pattern OR p_name = pattern)
        ORDER BY p_name = pattern DESC, realtime.count_literals(pattern) DESC, pattern COLLATE "C" LIMIT 1;
        RETURN v_found;
    END IF;
    SELECT id, webhook_urls INTO v_found.id, v_found.webhook_urls FROM realtime.channels WHERE pattern = p_name AND enabled;
    IF NOT FOUND THEN
        v_found := realtime.find_pattern(p_name);
    END IF;
    RETURN v_found;
END
$$;

-- Its id, for callers whose search_path is the session's. A plan is thrown away when the search_path is not the one that it was
-- made under: were find_channel() called under this one and under that of publish() and the stamp in turns, it would be planned
-- anew for every message of a client.
CREATE OR REPLACE FUNCTION realtime.match_channel(p_name text)
RETURNS uuid LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (realtime.find_channel(p_name)).id;
END
$$;

-- What may not be published, by anyone: names that Socket.IO or this server uses itself, and payloads that are no object.
-- An expression, which its callers' plans take in; refuse_malformed() is called for what it is not true of, and says why.
CREATE OR REPLACE FUNCTION realtime.is_well_formed(p_event_name text, p_payload jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT p_event_name <> '' AND jsonb_typeof(p_payload) = 'object'
       AND p_event_name NOT IN ('connect', 'connect_error', 'disconnect', 'disconnecting', 'error', 'newListener', 'removeListener')
       AND p_event_name NOT LIKE 'realtime:%' AND p_event_name NOT LIKE 'presence:%'
$$;

CREATE OR REPLACE FUNCTION realtime.refuse_malformed(p_event_name text, p_payload jsonb)
RETURNS void LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF p_event_name IS NULL OR p_event_name = '' THEN
        RAISE 'realtime: the event name is empty' USING ERRCODE = 'invalid_parameter_value';
    ELSIF NOT realtime.is_well_formed(p_event_name, '{}') THEN
        RAISE 'realtime: the event name "%" is reserved', p_event_name USING ERRCODE = 'invalid_parameter_value';
    ELSIF p_payload IS NULL OR jsonb_typeof(p_payload) <> 'object' THEN
        RAISE 'realtime: the payload must be a JSON object' USING ERRCODE = 'invalid_parameter_value';
    END IF;
END
$$;

-- The URLs of a channel that a message is sent to: each once, without blanks. Whether one can be used is found out when it
-- is tried: a malformed URL must not break an application's write.
CREATE OR REPLACE FUNCTION realtime.usable_urls(p_urls text[]) RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(array_agg(url ORDER BY place), '{}') FROM (
        SELECT btrim(given, E' \t\r\n') AS url, min(place) AS place FROM unnest(p_urls) WITH ORDINALITY AS u (given, place)
        WHERE btrim(given, E' \t\r\n') <> '' GROUP BY 1
    ) t
$$;

-- The id of a message. Ids that grow (PostgreSQL 18 and later) go to the end of their index; random ones dirty a page of it each,
-- which after every checkpoint is written to the WAL as a whole.
DO $$
BEGIN
    EXECUTE format('CREATE OR REPLACE FUNCTION realtime.new_id() RETURNS uuid LANGUAGE sql VOLATILE AS %L',
                   'SELECT ' || CASE WHEN to_regprocedure('pg_catalog.uuidv7()') IS NULL THEN 'gen_random_uuid()' ELSE 'uuidv7()' END);
END
$$;

-- Publish a message, as the system. Returns its id, or NULL where no enabled channel matches: a channel that someone
-- disabled never breaks an application's write.
CREATE OR REPLACE FUNCTION realtime.publish(p_channel_name text, p_event_name text, p_payload jsonb)
RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_channel realtime.channels := realtime.find_channel(p_channel_name);
    v_id uuid;
BEGIN
    IF realtime.is_well_formed(p_event_name, p_payload) IS NOT TRUE THEN
        PERFORM realtime.refuse_malformed(p_event_name, p_payload);
    END IF;
    IF v_channel.id IS NULL THEN
        RAISE WARNING 'realtime.publish: no enabled channel matches "%"', p_channel_name;
        RETURN NULL;
    END IF;
    INSERT INTO realtime.messages (id, event_name, channel_id, channel_name, payload, wh_audience_count)
    VALUES (realtime.new_id(), p_event_name, v_channel.id, p_channel_name, p_payload, CASE WHEN v_channel.webhook_urls IS NULL THEN 0
        ELSE cardinality(realtime.usable_urls(v_channel.webhook_urls)) END)
    RETURNING id INTO v_id;
    RETURN v_id;
END
$$;

-- Whatever anyone but the owner inserts is a user's message, with that user's id: nobody forges a sender.
-- The id goes to publish_as through a setting, since RETURNING would ask for a SELECT policy.
CREATE OR REPLACE FUNCTION realtime.stamp_message()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_channel realtime.channels := realtime.find_channel(NEW.channel_name);
    v_role text := current_setting('role');
BEGIN
    -- A copy stays what it is for those who could become the owner, such as a superuser who restores.
    IF NEW.xid = '0' AND pg_has_role(CASE v_role WHEN 'none' THEN session_user ELSE v_role END, current_user, 'MEMBER') THEN
        RETURN NEW;
    END IF;
    IF realtime.is_well_formed(NEW.event_name, NEW.payload) IS NOT TRUE THEN
        PERFORM realtime.refuse_malformed(NEW.event_name, NEW.payload);
    END IF;
    NEW.id := realtime.new_id();
    NEW.channel_id := v_channel.id;
    IF NEW.channel_id IS NULL THEN
        RAISE 'realtime: no enabled channel matches "%"', NEW.channel_name USING ERRCODE = 'no_data_found';
    END IF;
    NEW.sender_type := 'user';
    NEW.sender_id := auth.uid();
    NEW.ws_audience_count := 0;
    NEW.wh_audience_count := CASE WHEN v_channel.webhook_urls IS NULL THEN 0
        ELSE cardinality(realtime.usable_urls(v_channel.webhook_urls)) END;
    NEW.wh_delivered_count := 0;
    NEW.created_at := now();
    NEW.seq := nextval('realtime.messages_seq_seq');
    NEW.xid := pg_current_xact_id();
    PERFORM set_config('realtime.message_id', NEW.id::text, true);
    RETURN NEW;
END
$$;

-- A row with another transaction's id is a copy of a message that was delivered elsewhere, or long ago: COPY, a restore, logical
-- replication. Transaction 0 comes before all others, so the feed never delivers it, and queue_webhooks() leaves it alone.
-- Where its id is by chance that of the transaction which brings it, the copy is known by its number: it comes with one, while a
-- new row has just drawn its own. (Asked only where created_at is not now(), which is the trigger's condition.)
-- COPY and restores bring the sequence of `seq` along; replication does not, and what we publish later would collide.
CREATE OR REPLACE FUNCTION realtime.retire_copy()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.xid = pg_current_xact_id() THEN
            BEGIN
                IF NEW.seq = currval('realtime.messages_seq_seq') THEN
                    RETURN NEW;
                END IF;
            EXCEPTION WHEN object_not_in_prerequisite_state THEN
                NULL; -- this session has drawn no number
            END;
        END IF;
        NEW.xid := '0';
        IF current_setting('session_replication_role') = 'replica' THEN
            NEW.seq := nextval('realtime.messages_seq_seq');
        END IF;
    ELSIF current_setting('session_replication_role') = 'replica' THEN
        NEW.xid := OLD.xid;
        NEW.seq := OLD.seq;
    ELSIF NEW.xid NOT IN ('0', pg_current_xact_id()) THEN
        NEW.xid := OLD.xid;
    END IF;
    RETURN NEW;
END
$$;

-- One delivery for each URL, in the message's own transaction. The channel may have been changed since publish() or the stamp
-- counted its URLs: what is queued is what counts. `host` is what fairness goes by (webhooks/hosts.py), not what is connected to.
-- Rows that a restore brings along carry another transaction's id: they were sent in another life.
CREATE OR REPLACE FUNCTION realtime.queue_webhooks()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_queued integer;
BEGIN
    IF NEW.xid <> pg_current_xact_id() THEN
        RETURN NULL;
    END IF;
    INSERT INTO realtime.webhook_deliveries (message_id, url, host)
    SELECT NEW.id, u.url, coalesce(left(lower(substring(u.url FROM '^\w+://(?:[^/?#]*@)?([^/?#]*)')), 255), '')
    FROM realtime.channels c, unnest(realtime.usable_urls(c.webhook_urls)) AS u (url)
    WHERE c.id = coalesce(NEW.channel_id, realtime.match_channel(NEW.channel_name));
    GET DIAGNOSTICS v_queued = ROW_COUNT;
    IF v_queued <> NEW.wh_audience_count THEN
        UPDATE realtime.messages SET wh_audience_count = v_queued WHERE id = NEW.id;
    END IF;
    RETURN NULL;
END
$$;

-- Whether transactions may be prepared here (two-phase commit): one that has notified may not. `SET realtime.two_phase = 'off'`,
-- for a database or a role, says that those that publish never are. Asked by whoever would ring, and by the feed (pg/feed.py).
CREATE OR REPLACE FUNCTION realtime.is_two_phase() RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT current_setting('max_prepared_transactions')::integer > 0
       AND coalesce(current_setting('realtime.two_phase', true), '') <> 'off'
$$;

-- The doorbell: rings only while some feed sleeps, because NOTIFY takes a database-wide lock until after the WAL flush,
-- and transactions that notify never commit together. `asleep` is read before `rung` (see pg/feed.py). Where transactions may be
-- prepared, nobody rings and no feed sleeps; an older feed, or a ticket from before, may say otherwise.
CREATE OR REPLACE FUNCTION realtime.ring()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_asleep bigint := coalesce(pg_sequence_last_value('realtime.asleep'::regclass), 0);
    v_rung bigint := coalesce(pg_sequence_last_value('realtime.rung'::regclass), 0);
BEGIN
    IF v_asleep > v_rung AND NOT realtime.is_two_phase() THEN
        PERFORM pg_notify('realtime', v_asleep::text);
    END IF;
    RETURN NULL;
END
$$;

-- The finished Socket.IO event of a message: ["name",{…payload,"meta":{…}}]. A `meta` in the payload gives way to ours.
-- A payload that is no object (only the owner can have inserted one) is wrapped, so that no row can stop the feed.
CREATE OR REPLACE FUNCTION realtime.event_text(m realtime.messages) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_payload text := CASE jsonb_typeof(m.payload)
        WHEN 'object' THEN m.payload - 'meta' ELSE jsonb_build_object('payload', m.payload) END;
BEGIN
    RETURN concat(
        '[', to_json(m.event_name), ',', left(v_payload, -1), CASE v_payload WHEN '{}' THEN '' ELSE ', ' END,
        '"meta": {"channel": ', to_json(m.channel_name), ', "messageId": "', m.id, '", "senderType": "', m.sender_type, '"',
        ', "senderId": "' || m.sender_id || '"', ', "timestamp": "',
        to_char(coalesce(m.created_at, now()) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), '"}}]');
END
$$;

-- Whether the policies let this role see this channel row. One statement per role: the plan of a statement is thrown
-- away when the role changes. Asked by id, because by name the policies would judge every row (LIKE is not leakproof).
CREATE OR REPLACE FUNCTION realtime.judge_subscribe(p_role text, p_claims text, p_channel text, p_id uuid)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_setting text;
    v_seen boolean;
BEGIN
    v_setting := set_config('request.jwt.claims', p_claims, true);
    v_setting := set_config('realtime.channel_name', p_channel, true);
    v_setting := set_config('role', p_role, true);
    IF p_role = 'authenticated' THEN
        v_seen := EXISTS (SELECT FROM realtime.channels WHERE id = p_id);
    ELSIF p_role = 'anon' THEN
        v_seen := EXISTS (SELECT FROM realtime.channels WHERE id = p_id);
    ELSE
        v_seen := EXISTS (SELECT FROM realtime.channels WHERE id = p_id);
    END IF;
    v_setting := set_config('role', 'none', true);
    RETURN v_seen;
END
$$;

-- For each (role, claims, channel): 'yes', 'no', or the SQLSTATE and message of a policy that raised.
-- Must be called as a single autocommit statement: every setting made here ends with it.
--
-- The planner evaluates stable expressions to estimate them, so making a plan can raise for a channel that the policy
-- does not even concern. Hence, after an error, a second attempt with an empty channel name, which makes the plan, and a
-- third for real: only its error is believed.
CREATE OR REPLACE FUNCTION realtime.check_subscribe(p_roles text[], p_claims text[], p_channels text[])
RETURNS text[] LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_verdicts text[] := '{}';
    v_verdict text;
    v_channel text;
    v_id uuid;
BEGIN
    FOR i IN 1 .. cardinality(p_channels) LOOP
        v_id := realtime.match_channel(p_channels[i]);
        v_verdict := 'no';
        FOR attempt IN 1 .. CASE WHEN v_id IS NULL THEN 0 ELSE 3 END LOOP
            v_channel := CASE attempt WHEN 2 THEN '' ELSE p_channels[i] END;
            BEGIN
                v_verdict := CASE WHEN realtime.judge_subscribe(p_roles[i], p_claims[i], v_channel, v_id)
                    THEN 'yes' ELSE 'no' END;
                EXIT WHEN attempt <> 2;
            EXCEPTION WHEN OTHERS THEN
                v_verdict := SQLSTATE || ' ' || SQLERRM;
            END;
        END LOOP;
        v_verdicts[i] := v_verdict;
    END LOOP;
    RETURN v_verdicts;
END
$$;

-- Insert one message under the INSERT policies of a role. Returns the id that the stamp gave it.
CREATE OR REPLACE FUNCTION realtime.insert_as(
    p_role text, p_claims text, p_setting text, p_channel text, p_event text, p_payload jsonb
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_setting text;
BEGIN
    v_setting := set_config('request.jwt.claims', p_claims, true);
    v_setting := set_config('realtime.channel_name', p_setting, true);
    v_setting := set_config('role', p_role, true);
    IF p_role = 'authenticated' THEN
        INSERT INTO realtime.messages (channel_name, event_name, payload) VALUES (p_channel, p_event, p_payload);
    ELSIF p_role = 'anon' THEN
        INSERT INTO realtime.messages (channel_name, event_name, payload) VALUES (p_channel, p_event, p_payload);
    ELSE
        INSERT INTO realtime.messages (channel_name, event_name, payload) VALUES (p_channel, p_event, p_payload);
    END IF;
    v_setting := set_config('role', 'none', true);
    RETURN current_setting('realtime.message_id');
END
$$;

-- For each publication: 'ok' and the message's id, 'no', 'invalid' and why, or a SQLSTATE and message. Each stands for
-- itself: one that fails costs no other its message, though all of a call share one transaction. The attempts are those of
-- check_subscribe; what the second one did is undone.
CREATE OR REPLACE FUNCTION realtime.publish_as(
    p_roles text[], p_claims text[], p_channels text[], p_events text[], p_payloads text[]
) RETURNS text[] LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_verdicts text[] := '{}';
    v_verdict text;
    v_payload jsonb;
    v_setting text;
BEGIN
    FOR i IN 1 .. cardinality(p_channels) LOOP
        BEGIN
            v_payload := p_payloads[i];
            v_verdict := NULL;
            IF realtime.match_channel(p_channels[i]) IS NULL THEN v_verdict := 'no'; END IF;
        EXCEPTION WHEN data_exception THEN
            v_verdict := 'invalid ' || SQLERRM;
        END;
        FOR attempt IN 1 .. CASE WHEN v_verdict IS NULL THEN 3 ELSE 0 END LOOP
            v_setting := CASE attempt WHEN 2 THEN '' ELSE p_channels[i] END;
            BEGIN
                v_verdict := 'ok ' || realtime.insert_as(
                    p_roles[i], p_claims[i], v_setting, p_channels[i], p_events[i], v_payload);
                EXIT WHEN attempt <> 2;
                RAISE 'undo';
            EXCEPTION
                WHEN insufficient_privilege THEN
                    -- The policies' own no has this code too; only a missing grant begins like that.
                    v_verdict := CASE WHEN SQLERRM LIKE 'permission denied%' THEN SQLSTATE || ' ' || SQLERRM ELSE 'no' END;
                    EXIT WHEN attempt <> 2;
                WHEN OTHERS THEN
                    v_verdict := SQLSTATE || ' ' || SQLERRM;
            END;
        END LOOP;
        v_verdicts[i] := v_verdict;
    END LOOP;
    RETURN v_verdicts;
END
$$;

-- Publish lists of messages as the system: $1 says how long each list is, the others have all their messages one after
-- the other. For each list: {"ids": […]}, null where no enabled channel matches, or {"state", "message"} of what it raised.
-- A list is published as a whole or not at all, and one that fails costs no other its messages.
CREATE OR REPLACE FUNCTION realtime.publish_lists(p_sizes int[], p_channels text[], p_events text[], p_payloads text[])
RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    v_verdicts text[] := '{}';
    v_ids uuid[];
    v_size int;
    v_before int := 0;
BEGIN
    FOREACH v_size IN ARRAY p_sizes LOOP
        BEGIN
            v_ids := '{}';
            FOR i IN v_before + 1 .. v_before + v_size LOOP
                v_ids := v_ids || realtime.publish(p_channels[i], p_events[i], p_payloads[i]::jsonb);
            END LOOP;
            v_verdicts := v_verdicts || json_build_object('ids', v_ids)::text;
        EXCEPTION WHEN OTHERS THEN
            v_verdicts := v_verdicts || json_build_object('state', SQLSTATE, 'message', SQLERRM)::text;
        END;
        v_before := v_before + v_size;
    END LOOP;
    RETURN v_verdicts;
END
$$;

-- PUBLIC may execute a new function by default, and an adopted database may have granted more, by name or by ALTER DEFAULT
-- PRIVILEGES. Only channel_name() is for everyone: policies call it.
REVOKE ALL ON FUNCTION
    realtime.count_literals(text), realtime.find_pattern(text), realtime.find_channel(text), realtime.match_channel(text),
    realtime.is_well_formed(text, jsonb), realtime.refuse_malformed(text, jsonb),
    realtime.usable_urls(text[]), realtime.new_id(), realtime.publish(text, text, jsonb), realtime.stamp_message(),
    realtime.retire_copy(), realtime.queue_webhooks(), realtime.is_two_phase(), realtime.ring(),
    realtime.event_text(realtime.messages),
    realtime.judge_subscribe(text, text, text, uuid), realtime.check_subscribe(text[], text[], text[]),
    realtime.insert_as(text, text, text, text, text, jsonb),
    realtime.publish_as(text[], text[], text[], text[], text[]),
    realtime.publish_lists(int[], text[], text[], text[])
FROM PUBLIC, anon, authenticated;
GRANT EXECUTE ON FUNCTION realtime.channel_name() TO anon, authenticated, project_admin;
