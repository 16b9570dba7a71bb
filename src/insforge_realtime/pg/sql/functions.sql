-- Every function and trigger of the schema `realtime`. Re-applied by each `migrate`, in the migration's transaction.
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
BEGIN
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

-- The condition is evaluated as whoever inserts, hence the owner's name in it: inside publish() that is the owner.
DO $$
BEGIN
    EXECUTE format(
        'CREATE OR REPLACE TRIGGER stamp_message BEFORE INSERT ON realtime.messages
         FOR EACH ROW WHEN (current_user <> %L) EXECUTE FUNCTION realtime.stamp_message()',
        (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'realtime.messages'::regclass));
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

-- The condition is all that a message of a channel without webhooks pays.
CREATE OR REPLACE TRIGGER queue_webhooks AFTER INSERT ON realtime.messages
FOR EACH ROW WHEN (NEW.wh_audience_count > 0) EXECUTE FUNCTION realtime.queue_webhooks();

-- The doorbell: rings only while some feed sleeps, because NOTIFY takes a database-wide lock until after the WAL flush,
-- and transactions that notify never commit together. `asleep` is read before `rung` (see pg/feed.py).
CREATE OR REPLACE FUNCTION realtime.ring()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_asleep bigint := coalesce(pg_sequence_last_value('realtime.asleep'::regclass), 0);
    v_rung bigint := coalesce(pg_sequence_last_value('realtime.rung'::regclass), 0);
BEGIN
    IF v_asleep > v_rung THEN
        PERFORM pg_notify('realtime', v_asleep::text);
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER ring AFTER INSERT ON realtime.messages
FOR EACH STATEMENT EXECUTE FUNCTION realtime.ring();

-- The finished Socket.IO event of a message: ["name",{...payload,"meta":{...}}], of its parts. SQL, so that it becomes part of the
-- expression that it stands in.
CREATE OR REPLACE FUNCTION realtime.compose_event(
    p_event_name text, p_payload text, p_channel_name text, p_id uuid, p_sender_type text, p_sender_id uuid, p_created_at timestamptz
) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT pg_catalog.concat(
        '[', pg_catalog.to_json(p_event_name), ',', pg_catalog.left(p_payload, -1), CASE p_payload WHEN '{}' THEN '' ELSE ', ' END,
        '"meta": {"channel": ', pg_catalog.to_json(p_channel_name), ', "messageId": "', p_id, '", "senderType": "', p_sender_type, '"',
        ', "senderId": "' OPERATOR(pg_catalog.||) p_sender_id OPERATOR(pg_catalog.||) '"', ', "timestamp": "',
        pg_catalog.to_char(coalesce(p_created_at, pg_catalog.now()) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), '"}}]')
$$;

-- One page of the feed: of the rows that became visible since the snapshot p_since, the first ones in the order of seq, at most
-- p_rows of them and about p_bytes of text; and the snapshot that they were seen in. Or the next page of the same window: after the
-- row p_after, and only what was visible in the snapshot p_until that ends it. (STABLE: so all of it sees one snapshot.)
--
-- No row stops the feed. One that cannot be turned into text (it would be over 1 GB, a numeric or a byte cannot be read, its
-- TOAST is gone) ends the page: `failed` says why, and `last_seq` is the row. One over p_largest bytes is in `oversized`. Rows that
-- are marked already are passed over. A `meta` in the payload gives way to ours; a payload that is not an object (only the owner
-- can have inserted one) is wrapped.
--
-- Rows whose transaction id is still to come here (they were copied from elsewhere) are not visible in any snapshot yet.
-- `+ 0`, or the planner would walk the index on seq, which gives the order for free, through the whole table.
CREATE OR REPLACE FUNCTION realtime.read_page(
    p_since pg_snapshot, p_until pg_snapshot, p_after bigint, p_rows int, p_bytes int, p_largest int,
    OUT snapshot text, OUT more boolean, OUT last_seq bigint, OUT webhooks boolean, OUT seqs bigint[], OUT keys bigint[],
    OUT channels text[], OUT events text[], OUT oversized text[], OUT failed text, OUT failed_id text
) LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    m realtime.messages;
    v_now pg_snapshot := coalesce(p_until, pg_current_snapshot());
    v_utf8 boolean := getdatabaseencoding() = 'UTF8';
    v_reading boolean := false;
    v_rows int := 0;
    v_room int := p_bytes;
    v_payload text;
    v_event text;
BEGIN
    snapshot := v_now::text; more := false; webhooks := false; last_seq := p_after;
    seqs := '{}'; keys := '{}'; channels := '{}'; events := '{}'; oversized := '{}';
    FOR m IN
        (SELECT t.* FROM realtime.messages t
         WHERE p_until IS NULL AND pg_visible_in_snapshot(t.xid, v_now)
           AND (t.xid >= pg_snapshot_xmax(p_since) AND t.xid < pg_snapshot_xmax(v_now)
                OR t.xid = ANY (ARRAY (SELECT pg_snapshot_xip(p_since))))
         ORDER BY t.seq + 0 LIMIT p_rows)
        UNION ALL
        (SELECT t.* FROM realtime.messages t
         WHERE p_until IS NOT NULL AND t.seq > p_after
           AND NOT pg_visible_in_snapshot(t.xid, p_since) AND pg_visible_in_snapshot(t.xid, v_now)
         ORDER BY t.seq LIMIT p_rows)
    LOOP
        more := v_room <= 0;
        EXIT WHEN more;
        v_reading := true;
        v_rows := v_rows + 1;
        last_seq := m.seq;
        IF m.undeliverable IS NULL THEN
            v_payload := CASE
                WHEN jsonb_typeof(m.payload) <> 'object' THEN jsonb_build_object('payload', m.payload)
                WHEN m.payload ? 'meta' THEN m.payload - 'meta'
                ELSE m.payload END;
            v_event := realtime.compose_event(
                m.event_name, v_payload, m.channel_name, m.id, m.sender_type, m.sender_id, m.created_at);
            IF NOT v_utf8 THEN
                PERFORM convert_to(v_event, 'UTF8');
            END IF;
            webhooks := webhooks OR m.wh_audience_count > 0;
            IF octet_length(v_event) > p_largest THEN
                oversized := oversized || format('%s (%s bytes)', m.id, octet_length(v_event));
            ELSE
                v_room := v_room - octet_length(v_event);
                seqs := seqs || m.seq;
                keys := keys || uuid_hash_extended(m.id, 0);
                channels := channels || m.channel_name;
                events := events || v_event;
            END IF;
        END IF;
        v_reading := false;
    END LOOP;
    more := more OR v_rows = p_rows;
EXCEPTION WHEN data_exception OR program_limit_exceeded OR out_of_memory OR internal_error OR data_corrupted THEN
    IF NOT v_reading THEN
        RAISE;
    END IF;
    more := true;
    failed := SQLSTATE || ' ' || SQLERRM;
    failed_id := m.id::text;
END
$$;

-- The payload as text; NULL where it cannot be text, or is larger than an event may be. So no row stops those that it is read with.
CREATE OR REPLACE FUNCTION realtime.payload_text(p_payload jsonb)
RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_text text;
BEGIN
    v_text := p_payload;
    RETURN CASE WHEN octet_length(convert_to(v_text, 'UTF8')) <= 4194304 THEN v_text END;
EXCEPTION WHEN data_exception OR program_limit_exceeded OR out_of_memory OR internal_error OR data_corrupted THEN
    RETURN NULL;
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
    realtime.queue_webhooks(), realtime.ring(), realtime.compose_event(text, text, text, uuid, text, uuid, timestamptz),
    realtime.read_page(pg_snapshot, pg_snapshot, bigint, int, int, int), realtime.payload_text(jsonb),
    realtime.judge_subscribe(text, text, text, uuid), realtime.check_subscribe(text[], text[], text[]),
    realtime.insert_as(text, text, text, text, text, jsonb),
    realtime.publish_as(text[], text[], text[], text[], text[]),
    realtime.publish_lists(int[], text[], text[], text[])
FROM PUBLIC, anon, authenticated;
GRANT EXECUTE ON FUNCTION realtime.channel_name() TO anon, authenticated, project_admin;
