-- The functions of the schema `realtime`, except those that act for clients (judges.sql) and the one that an index needs
-- (migrations/0003_patterns_and_room.sql). Re-applied by each `migrate`, in the migration's transaction: that takes no lock on
-- a table. The triggers that call some of them are in triggers.sql.
--
-- The owner of realtime.messages owns these too, and is the role that the server connects as: SECURITY DEFINER means
-- "as the server" below. Signatures that applications know (publish, channel_name) never change.
--
-- None of these resolves a name by the search_path of whoever calls: in a schema that others can write to there may be a
-- function or an operator that fits better than PostgreSQL's own, and it would run as the server. So each has a path of its
-- own, except where somebody else's code is run that needs the caller's (policies, triggers on realtime.messages, auth.uid()),
-- and where a path would forbid inlining, or cost more than all the rest: there every name is qualified. IN, LIKE, NULLIF,
-- BETWEEN, IS DISTINCT FROM and CASE x WHEN cannot be. A literal with a backslash in it is dollar-quoted: in quotes, it means
-- something else under standard_conforming_strings = off.

SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

-- Return the channel that a policy is to judge. A setting reads as '' once its transaction has ended.
CREATE OR REPLACE FUNCTION realtime.channel_name() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN pg_catalog.current_setting('realtime.channel_name', true) OPERATOR(pg_catalog.<>) ''
        THEN pg_catalog.current_setting('realtime.channel_name', true) END
$$;

-- Count the characters of a pattern that stand for themselves.
CREATE OR REPLACE FUNCTION realtime.count_literals(p_pattern text) RETURNS integer LANGUAGE sql IMMUTABLE AS $$
    SELECT pg_catalog.length(pg_catalog.translate(
        CASE WHEN pg_catalog.strpos(p_pattern, $q$\$q$) OPERATOR(pg_catalog.=) 0 THEN p_pattern
            ELSE pg_catalog.regexp_replace(p_pattern, $q$\\(.)$q$, '.', 'g') END, '%_', ''))
$$;

-- The limits of realtime.limits, each read only for values beyond the least that it may be.
CREATE OR REPLACE FUNCTION realtime.max_name_bytes()
RETURNS integer LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN coalesce((SELECT max_name_bytes FROM realtime.limits), 255);
END
$$;

CREATE OR REPLACE FUNCTION realtime.max_event_bytes()
RETURNS integer LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN coalesce((SELECT max_event_bytes FROM realtime.limits), 4194304);
END
$$;

-- Return whether this may be the name of a channel or an event. validation.py agrees. An expression, to be inlined by its callers.
CREATE OR REPLACE FUNCTION realtime.is_name(p_name text) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN pg_catalog.octet_length(p_name) OPERATOR(pg_catalog.<=) 255 THEN p_name OPERATOR(pg_catalog.<>) ''
            ELSE pg_catalog.octet_length(p_name) OPERATOR(pg_catalog.<=) realtime.max_name_bytes() END
       AND p_name OPERATOR(pg_catalog.!~) $q$[\u0001-\u001F\u007F-\u009F]$q$ COLLATE pg_catalog."C"
$$;

-- Find the pattern that a name belongs to, among thousands: by the index on their literal prefixes, with every prefix of the name.
-- The plan is made once, for any name: planning for each would cost several times as much as the search.
CREATE OR REPLACE FUNCTION realtime.find_pattern(p_name text) RETURNS realtime.channels LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_found realtime.channels;
BEGIN
    SELECT id, webhook_urls INTO v_found.id, v_found.webhook_urls FROM realtime.channels
    WHERE realtime.literal_prefix(pattern) COLLATE "C" = ANY (ARRAY (SELECT left(p_name, n) FROM generate_series(0, length(p_name)) n))
      AND enabled AND pattern ~ $q$[%_\\]$q$ AND p_name LIKE pattern
    ORDER BY realtime.count_literals(pattern) DESC, pattern COLLATE "C" LIMIT 1;
    RETURN v_found;
END
$$;

-- Find the one channel row that a name belongs to: enabled; an exact match first, else the pattern with the most literal
-- characters, ties by pattern. Subscribe, publish and webhooks all use this row: if any matching row could let
-- someone in, a public `chat:%` would open a private `chat:vip:%`. plpgsql, because its plans are kept.
-- A table of one page (about a hundred rows) is read as a whole, which costs less than any index; a larger one by index.
-- Only the columns that publish() needs are filled: sorting whole rows costs more than all the rest. Invalid names are not
-- looked up: the prefixes of 40 KB take more than a gigabyte.
-- It sets its own path: a plan is thrown away when the search_path is not the one that it was made under.
CREATE OR REPLACE FUNCTION realtime.find_channel(p_name text)
RETURNS realtime.channels LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_found realtime.channels;
BEGIN
    IF realtime.is_name(p_name) IS NOT TRUE THEN
        RETURN NULL;
    END IF;
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

-- Its id.
CREATE OR REPLACE FUNCTION realtime.match_channel(p_name text) RETURNS uuid LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (realtime.find_channel(p_name)).id;
END
$$;

-- Return whether anyone at all may publish this: not names that Socket.IO or this server uses itself, nor payloads that are not
-- objects. An expression, to be inlined by its callers, like is_name and is_small; if one of the three is not true, fault() finds
-- out why, and refuse() raises it.
CREATE OR REPLACE FUNCTION realtime.is_well_formed(p_event_name text, p_payload jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT pg_catalog.jsonb_typeof(p_payload) OPERATOR(pg_catalog.=) 'object'
       AND p_event_name OPERATOR(pg_catalog.<>) ALL (
            ARRAY['', 'connect', 'connect_error', 'disconnect', 'disconnecting', 'error', 'newListener', 'removeListener'])
       AND p_event_name OPERATOR(pg_catalog.!~~) 'realtime:%' AND p_event_name OPERATOR(pg_catalog.!~~) 'presence:%'
$$;

-- Return whether a payload is certain not to exceed, as text, what an event may be. Nothing in jsonb expands more than a number:
-- 16 bytes of it stand for at most 147 457 characters, so 448 bytes never exceed the least that the limit may be (4 MiB).
-- Anything longer is converted and measured, unless the text might be more than PostgreSQL allows a string, and raise.
CREATE OR REPLACE FUNCTION realtime.is_small(p_payload jsonb) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT pg_catalog.pg_column_compression(p_payload) IS NULL AND CASE
        WHEN pg_catalog.pg_column_size(p_payload) OPERATOR(pg_catalog.<=) 448 THEN true
        WHEN pg_catalog.pg_column_size(p_payload) OPERATOR(pg_catalog.<=) 100000
        THEN pg_catalog.octet_length(p_payload::pg_catalog.text) OPERATOR(pg_catalog.<=) 4194304 END
$$;

-- Return whether a payload is larger as text than an event may be. In large ones the numbers of more than 64 digits come first,
-- one by one and no further than the limit: to write all of them may take a gigabyte, and ten seconds.
CREATE OR REPLACE FUNCTION realtime.is_too_large(p_payload jsonb)
RETURNS boolean LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_most integer := realtime.max_event_bytes();
BEGIN
    IF (pg_column_compression(p_payload) IS NOT NULL OR pg_column_size(p_payload) > 100000) AND EXISTS (
        SELECT FROM (
            SELECT sum(octet_length(number::text)) OVER (ROWS UNBOUNDED PRECEDING) AS bytes
            FROM jsonb_path_query(p_payload, 'strict $.**{last} ? (@.abs() > 1e64)') number) numbers
        WHERE bytes > v_most)
    THEN
        RETURN true;
    END IF;
    RETURN octet_length(p_payload::text) > v_most;
EXCEPTION WHEN program_limit_exceeded THEN
    RETURN true;
END
$$;

-- Return what is wrong with a name: 'invalid' and why, or NULL.
CREATE OR REPLACE FUNCTION realtime.fault_of_name(p_what text, p_name text)
RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN CASE
        WHEN realtime.is_name(p_name) THEN NULL
        WHEN coalesce(p_name, '') = '' THEN format('invalid the %s name is empty', p_what)
        WHEN octet_length(p_name) > realtime.max_name_bytes() THEN
            format('invalid the %s name is %s bytes long, and may be %s', p_what, octet_length(p_name), realtime.max_name_bytes())
        ELSE format('invalid the %s name contains the control character U+%s', p_what, lpad(upper(to_hex(
            ascii(substring(p_name FROM $q$[\u0001-\u001F\u007F-\u009F]$q$)))), 4, '0')) END;
END
$$;

-- Return what is wrong with the rest of a message: 'invalid' or 'too_large', and why, or NULL.
CREATE OR REPLACE FUNCTION realtime.fault(p_event_name text, p_payload jsonb)
RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN CASE
        WHEN realtime.is_name(p_event_name) IS NOT TRUE THEN realtime.fault_of_name('event', p_event_name)
        WHEN NOT realtime.is_well_formed(p_event_name, '{}') THEN format('invalid the event name "%s" is reserved', p_event_name)
        WHEN p_payload IS NULL OR jsonb_typeof(p_payload) <> 'object' THEN 'invalid the payload must be a JSON object'
        WHEN realtime.is_too_large(p_payload) THEN
            format('too_large the payload is larger than %s bytes as text', realtime.max_event_bytes()) END;
END
$$;

-- Raise for a fault, if it is one. The name of the constraint tells our refusals from anybody else's errors.
CREATE OR REPLACE FUNCTION realtime.refuse(p_fault text)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_kind text := split_part(p_fault, ' ', 1);
BEGIN
    IF p_fault IS NOT NULL THEN
        RAISE 'realtime: %', substr(p_fault, length(v_kind) + 2) USING CONSTRAINT = 'realtime_' || v_kind,
            ERRCODE = CASE v_kind WHEN 'too_large' THEN 'program_limit_exceeded' ELSE 'invalid_parameter_value' END,
            HINT = CASE v_kind WHEN 'too_large'
                THEN 'Publish less of it, or a reference to it. The limit is max_event_bytes in realtime.limits.'
                ELSE 'Names are short (max_name_bytes in realtime.limits), without control characters and not reserved; '
                     'a payload is what jsonb_build_object() or to_jsonb() of a row makes.' END;
    END IF;
END
$$;

-- Return the URLs of a channel that a message is sent to: each once, without blanks. Whether one is usable turns out when it
-- is tried: a malformed URL must not break an application's write.
CREATE OR REPLACE FUNCTION realtime.usable_urls(p_urls text[])
RETURNS text[] LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(array_agg(url ORDER BY place), '{}') FROM (
        SELECT btrim(given, ' ' || chr(9) || chr(10) || chr(13)) AS url, min(place) AS place
        FROM unnest(p_urls) WITH ORDINALITY AS u (given, place) GROUP BY 1
    ) t WHERE url <> ''
$$;

-- Make the id of a message. Ids that grow (PostgreSQL 18 and later) go to the end of their index; random ones dirty a page each,
-- which after every checkpoint is written to the WAL as a whole.
DO $$
BEGIN
    EXECUTE format('CREATE OR REPLACE FUNCTION realtime.new_id() RETURNS uuid LANGUAGE sql VOLATILE AS %L',
                   'SELECT pg_catalog.' || CASE WHEN to_regprocedure('pg_catalog.uuidv7()') IS NULL
                       THEN 'gen_random_uuid()' ELSE 'uuidv7()' END);
END
$$;

-- Publish a message, as the system. Returns its id, or NULL if no enabled channel matches: a channel that someone
-- disabled never breaks an application's write. Triggers on realtime.messages run under the caller's search_path.
CREATE OR REPLACE FUNCTION realtime.publish(p_channel_name text, p_event_name text, p_payload jsonb)
RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    v_channel realtime.channels := realtime.find_channel(p_channel_name);
    v_id pg_catalog.uuid;
BEGIN
    IF (realtime.is_well_formed(p_event_name, p_payload) AND realtime.is_name(p_event_name) AND realtime.is_small(p_payload))
        IS NOT TRUE
    THEN
        PERFORM realtime.refuse(realtime.fault(p_event_name, p_payload));
    END IF;
    IF v_channel.id IS NULL THEN
        PERFORM realtime.warn_of_no_channel(p_channel_name);
        RETURN NULL;
    END IF;
    INSERT INTO realtime.messages (id, event_name, channel_id, channel_name, payload, wh_audience_count)
    VALUES (realtime.new_id(), p_event_name, v_channel.id, p_channel_name, p_payload, CASE WHEN v_channel.webhook_urls IS NULL THEN 0
        ELSE pg_catalog.cardinality(realtime.usable_urls(v_channel.webhook_urls)) END)
    RETURNING id INTO v_id;
    RETURN v_id;
END
$$;

-- Warn, for publish(), of a name that leads nowhere. It raises only for what cannot be a channel's name.
CREATE OR REPLACE FUNCTION realtime.warn_of_no_channel(p_channel_name text)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF p_channel_name IS NULL THEN
        RAISE WARNING 'realtime.publish: the channel name is NULL, so nothing was published'
            USING HINT = 'Something that was concatenated into it is NULL.';
    ELSIF p_channel_name = '' THEN
        RAISE WARNING 'realtime.publish: the channel name is empty, so nothing was published';
    ELSE
        PERFORM realtime.refuse(realtime.fault_of_name('channel', p_channel_name));
        RAISE WARNING 'realtime.publish: no enabled channel matches "%"', p_channel_name;
    END IF;
END
$$;

-- The same for json, and for text that holds an object: an untyped literal is text here. Roles that may call the one above
-- may call these, which do nothing but call it, with the caller's rights.
CREATE OR REPLACE FUNCTION realtime.publish(p_channel_name text, p_event_name text, p_payload json)
RETURNS uuid LANGUAGE sql AS $$
    SELECT realtime.publish(p_channel_name, p_event_name, p_payload::pg_catalog.jsonb)
$$;

CREATE OR REPLACE FUNCTION realtime.refuse_text()
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE 'realtime: the payload must be a JSON object, and this text is not one'
        USING ERRCODE = 'invalid_parameter_value', CONSTRAINT = 'realtime_invalid',
            HINT = 'Build one with jsonb_build_object() or to_jsonb(), or cast text that holds one with ::jsonb.';
END
$$;

CREATE OR REPLACE FUNCTION realtime.publish(p_channel_name text, p_event_name text, p_payload text)
RETURNS uuid LANGUAGE sql AS $$
    SELECT realtime.publish(p_channel_name, p_event_name, CASE WHEN p_payload OPERATOR(pg_catalog.!~) '^[[:space:]]*[{]'
        THEN realtime.refuse_text() ELSE p_payload::pg_catalog.jsonb END)
$$;

-- Stamp a message: whatever anyone but the owner inserts is a user's, with that user's id, so nobody forges a sender.
-- The id reaches publish_as through a setting, since RETURNING would require a SELECT policy.
CREATE OR REPLACE FUNCTION realtime.stamp_message()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    v_channel realtime.channels := realtime.find_channel(NEW.channel_name);
    v_setting pg_catalog.text;
    v_role pg_catalog.text := pg_catalog.current_setting('role');
BEGIN
    -- A copy stays what it is for roles that could become the owner, such as a superuser that restores.
    IF NEW.xid OPERATOR(pg_catalog.=) '0'::pg_catalog.xid8 AND pg_catalog.pg_has_role(
        CASE WHEN v_role OPERATOR(pg_catalog.=) 'none' THEN session_user ELSE v_role::pg_catalog.name END, current_user, 'MEMBER')
    THEN
        RETURN NEW;
    END IF;
    IF (realtime.is_well_formed(NEW.event_name, NEW.payload) AND realtime.is_name(NEW.event_name) AND realtime.is_small(NEW.payload))
        IS NOT TRUE
    THEN
        PERFORM realtime.refuse(realtime.fault(NEW.event_name, NEW.payload));
    END IF;
    IF v_channel.id IS NULL THEN
        PERFORM realtime.refuse(realtime.fault_of_name('channel', NEW.channel_name));
        RAISE 'realtime: no enabled channel matches "%"', NEW.channel_name
            USING ERRCODE = 'no_data_found', CONSTRAINT = 'realtime_no_channel';
    END IF;
    NEW.id := realtime.new_id();
    NEW.channel_id := v_channel.id;
    NEW.sender_type := 'user';
    NEW.sender_id := NULL;
    NEW.ws_audience_count := 0;
    NEW.wh_audience_count := CASE WHEN v_channel.webhook_urls IS NULL THEN 0
        ELSE pg_catalog.cardinality(realtime.usable_urls(v_channel.webhook_urls)) END;
    NEW.wh_delivered_count := 0;
    NEW.created_at := pg_catalog.now();
    NEW.seq := pg_catalog.nextval('realtime.messages_seq_seq');
    NEW.xid := pg_catalog.pg_current_xact_id();
    v_setting := pg_catalog.set_config('realtime.message_id', NEW.id::pg_catalog.text, true);
    RETURN NEW;
END
$$;

-- A row with another transaction's id is a copy of a message that was delivered elsewhere, or long ago: COPY, a restore, logical
-- replication. Transaction 0 comes before all others, so the feed never delivers it, and queue_webhooks() leaves it alone.
-- If its id happens to be that of the transaction which brings it, the copy is recognised by its number: it comes with one, while
-- a new row has just drawn its own. (Checked only if created_at is not now(), which is the trigger's condition.)
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

-- Set the sender. auth.uid() is somebody's function, which may be written carelessly: so it runs as the inserting role, and under
-- its search_path, never as the server. It knows best who that is; if it cannot read the claims (a subject that is not a uuid),
-- the message has no sender. If the role may not call it, the claims are taken at their word, provided that is a uuid.
-- Catching costs a fifth of a microsecond, a tenth of what it takes to find out whether the subject is a uuid.
CREATE OR REPLACE FUNCTION realtime.stamp_sender() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_subject pg_catalog.text;
BEGIN
    NEW.sender_id := auth.uid();
    RETURN NEW;
EXCEPTION
    WHEN data_exception THEN
        NEW.sender_id := NULL;
        RETURN NEW;
    WHEN insufficient_privilege THEN
        IF pg_catalog.has_schema_privilege('auth', 'USAGE') AND pg_catalog.has_function_privilege('auth.uid()', 'EXECUTE') THEN
            RAISE;
        END IF;
        v_subject := pg_catalog.current_setting('request.jwt.claims', true);
        v_subject := CASE WHEN v_subject OPERATOR(pg_catalog.<>) ''
            THEN v_subject::pg_catalog.jsonb OPERATOR(pg_catalog.->>) 'sub' END;
        NEW.sender_id := CASE WHEN v_subject OPERATOR(pg_catalog.~*) '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
            THEN v_subject END;
        RETURN NEW;
END
$$;

-- Queue one delivery for each URL, in the message's own transaction. The channel may have changed since publish() or the stamp
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
    SELECT NEW.id, u.url, coalesce(left(lower(substring(u.url FROM $q$^\w+://(?:[^/?#]*@)?([^/?#]*)$q$)), 255), '')
    FROM realtime.channels c, unnest(realtime.usable_urls(c.webhook_urls)) AS u (url)
    WHERE c.id = coalesce(NEW.channel_id, realtime.match_channel(NEW.channel_name));
    GET DIAGNOSTICS v_queued = ROW_COUNT;
    IF v_queued <> NEW.wh_audience_count THEN
        UPDATE realtime.messages SET wh_audience_count = v_queued WHERE id = NEW.id;
    END IF;
    RETURN NULL;
END
$$;

-- Return whether transactions may be prepared here (two-phase commit): one that has notified may not. `SET realtime.two_phase =
-- 'off'`, for a database or a role, declares that those that publish never are. For the doorbell, and the feed (pg/feed.py).
CREATE OR REPLACE FUNCTION realtime.is_two_phase() RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT pg_catalog.current_setting('max_prepared_transactions') OPERATOR(pg_catalog.<>) '0'
       AND coalesce(pg_catalog.current_setting('realtime.two_phase', true), '') OPERATOR(pg_catalog.<>) 'off'
$$;

-- The doorbell: rings only while some feed sleeps, because NOTIFY takes a database-wide lock until after the WAL flush,
-- and transactions that notify never commit together. `asleep` is read before `rung` (see pg/feed.py). If transactions may be
-- prepared, nobody rings and no feed sleeps; an older feed, or an earlier ticket, may claim otherwise.
CREATE OR REPLACE FUNCTION realtime.ring() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    v_asleep bigint := coalesce(pg_catalog.pg_sequence_last_value('realtime.asleep'::pg_catalog.regclass), 0);
    v_rung bigint := coalesce(pg_catalog.pg_sequence_last_value('realtime.rung'::pg_catalog.regclass), 0);
BEGIN
    IF v_asleep OPERATOR(pg_catalog.>) v_rung AND NOT realtime.is_two_phase() THEN
        PERFORM pg_catalog.pg_notify('realtime', v_asleep::pg_catalog.text);
    END IF;
    RETURN NULL;
END
$$;

-- Return the payload of a message as its event has it: without a `meta`, which gives way to ours. One that is not an object (only
-- the owner can have inserted it) is wrapped. SQL, like the next one, so that both are inlined.
CREATE OR REPLACE FUNCTION realtime.event_payload(p_payload jsonb) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN pg_catalog.jsonb_typeof(p_payload) OPERATOR(pg_catalog.<>) 'object'
            THEN pg_catalog.jsonb_build_object('payload', p_payload)
        WHEN p_payload OPERATOR(pg_catalog.?) 'meta' THEN p_payload OPERATOR(pg_catalog.-) 'meta'::pg_catalog.text
        ELSE p_payload END::pg_catalog.text
$$;

-- Make the finished Socket.IO event of a message from its parts: ["name",{...payload,"meta":{...}}].
CREATE OR REPLACE FUNCTION realtime.compose_event(
    p_event_name text, p_payload text, p_channel_name text, p_id uuid, p_sender_type text, p_sender_id uuid, p_created_at timestamptz
) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT pg_catalog.concat(
        '[', pg_catalog.to_json(p_event_name), ',', pg_catalog.left(p_payload, -1),
        CASE WHEN p_payload OPERATOR(pg_catalog.<>) '{}' THEN ', ' END,
        '"meta": {"channel": ', pg_catalog.to_json(p_channel_name), ', "messageId": "', p_id, '", "senderType": "', p_sender_type, '"',
        CASE WHEN p_sender_id IS NOT NULL THEN ', "senderId": "' END, p_sender_id, CASE WHEN p_sender_id IS NOT NULL THEN '"' END,
        ', "timestamp": "',
        pg_catalog.to_char(coalesce(p_created_at, pg_catalog.now()) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), '"}}]')
$$;

-- Make the finished event of one message.
CREATE OR REPLACE FUNCTION realtime.event_text(m realtime.messages)
RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_payload text := realtime.event_payload(m.payload);
BEGIN
    RETURN realtime.compose_event(m.event_name, v_payload, m.channel_name, m.id, m.sender_type, m.sender_id, m.created_at);
END
$$;

-- Read one page of the feed: of the rows that became visible since the snapshot p_since, the first ones in the order of seq, at
-- most p_rows of them and about p_bytes of text; and the snapshot in which they were seen. Or the next page of the same window:
-- after the row p_after, and only what was visible in the snapshot p_until that ends it. (STABLE, so all of it sees one snapshot.)
--
-- No row stops the feed. One that cannot be turned into text (it is larger than any event may be, a byte cannot be read, its TOAST
-- is gone) ends the page: `failed` says why, and `last_seq` is the row. One over p_largest bytes goes to `oversized`. Rows that
-- are marked already are skipped.
--
-- Rows whose transaction id is still to come here (they were copied from elsewhere) are not visible in any snapshot yet.
-- Without `+ 0` the planner would walk the index on seq, which gives the order for free, through the whole table.
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
            IF (pg_column_compression(m.payload) IS NOT NULL OR pg_column_size(m.payload) > 100000)
                AND realtime.is_too_large(m.payload)
            THEN
                RAISE 'larger as text than an event may be' USING ERRCODE = 'program_limit_exceeded';
            END IF;
            v_payload := realtime.event_payload(m.payload);
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

-- Return the payload as text; NULL if it cannot be text, or is larger than an event may be: no row stops those it is read with.
CREATE OR REPLACE FUNCTION realtime.payload_text(p_payload jsonb)
RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_text text;
BEGIN
    IF realtime.is_small(p_payload) IS NOT TRUE AND realtime.is_too_large(p_payload) THEN
        RETURN NULL;
    END IF;
    v_text := p_payload;
    PERFORM convert_to(v_text, 'UTF8');
    RETURN v_text;
EXCEPTION WHEN data_exception OR program_limit_exceeded OR out_of_memory OR internal_error OR data_corrupted THEN
    RETURN NULL;
END
$$;

-- PUBLIC may execute a new function by default, and an adopted database may have granted more, by name or by ALTER DEFAULT
-- PRIVILEGES. Only these are for everyone: channel_name(), which policies call, and what calls publish() with its caller's own rights.
REVOKE ALL ON FUNCTION
    realtime.count_literals(text), realtime.max_name_bytes(), realtime.max_event_bytes(), realtime.is_name(text),
    realtime.find_pattern(text), realtime.find_channel(text), realtime.match_channel(text),
    realtime.is_well_formed(text, jsonb), realtime.is_small(jsonb), realtime.is_too_large(jsonb),
    realtime.fault_of_name(text, text), realtime.fault(text, jsonb), realtime.refuse(text), realtime.warn_of_no_channel(text),
    realtime.usable_urls(text[]), realtime.new_id(), realtime.publish(text, text, jsonb), realtime.stamp_message(),
    realtime.stamp_sender(), realtime.retire_copy(), realtime.queue_webhooks(), realtime.is_two_phase(), realtime.ring(),
    realtime.event_payload(jsonb), realtime.compose_event(text, text, text, uuid, text, uuid, timestamptz),
    realtime.event_text(realtime.messages),
    realtime.read_page(pg_snapshot, pg_snapshot, bigint, int, int, int), realtime.payload_text(jsonb)
FROM PUBLIC, anon, authenticated;
GRANT EXECUTE ON FUNCTION realtime.channel_name() TO anon, authenticated, project_admin;
GRANT EXECUTE ON FUNCTION
    realtime.publish(text, text, json), realtime.publish(text, text, text), realtime.refuse_text() TO PUBLIC;
DROP FUNCTION IF EXISTS realtime.refuse_malformed(text, jsonb);
