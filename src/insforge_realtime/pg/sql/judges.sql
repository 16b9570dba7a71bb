-- The functions that act for clients, and the one by which Python code publishes. The second half of functions.sql, where it is
-- told how functions are written here; applied after it, in the same transaction.

SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

-- Become a client, for the rest of the transaction: its claims, in both forms that PostgREST has had (an auth.uid() may read
-- either), the channel that policies are to judge, and its role, last. An expression, to be inlined by its callers.
-- Nothing is left of the previous client: what its claims lack is ''. All of it is done: num_nulls() evaluates each.
CREATE OR REPLACE FUNCTION realtime.become(p_role text, p_claims text, p_read jsonb, p_channel text)
RETURNS integer LANGUAGE sql AS $$
    SELECT pg_catalog.num_nulls(
        pg_catalog.set_config('request.jwt.claims', p_claims, true),
        pg_catalog.set_config('request.jwt.claim.sub', coalesce(p_read OPERATOR(pg_catalog.->>) 'sub', ''), true),
        pg_catalog.set_config('request.jwt.claim.role', coalesce(p_read OPERATOR(pg_catalog.->>) 'role', ''), true),
        pg_catalog.set_config('request.jwt.claim.email', coalesce(p_read OPERATOR(pg_catalog.->>) 'email', ''), true),
        pg_catalog.set_config('realtime.channel_name', p_channel, true),
        pg_catalog.set_config('role', p_role, true))
$$;

-- Return whether the policies let this role see this channel row. One statement per role: the plan of a statement is thrown
-- away when the role changes. By id, because by name the policies would judge every row (LIKE is not leakproof).
CREATE OR REPLACE FUNCTION realtime.judge_subscribe(p_role text, p_claims text, p_channel text, p_id uuid)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_claims pg_catalog.jsonb := p_claims;
    v_nulls integer := realtime.become(p_role, p_claims, v_claims, p_channel);
    v_setting pg_catalog.text;
    v_seen boolean;
BEGIN
    IF p_role OPERATOR(pg_catalog.=) 'authenticated' THEN
        SELECT true INTO v_seen FROM realtime.channels WHERE id OPERATOR(pg_catalog.=) p_id;
    ELSIF p_role OPERATOR(pg_catalog.=) 'anon' THEN
        SELECT true INTO v_seen FROM realtime.channels WHERE id OPERATOR(pg_catalog.=) p_id;
    ELSE
        SELECT true INTO v_seen FROM realtime.channels WHERE id OPERATOR(pg_catalog.=) p_id;
    END IF;
    v_setting := pg_catalog.set_config('role', 'none', true);
    RETURN v_seen IS TRUE;
END
$$;

-- Return what an error means for a client's request: 'no' if the stamp found no channel; 'no' and the error if a value could not
-- be read (class 22: mostly a cast that cannot read a segment of the name); else the SQLSTATE and message. Other refusals of
-- our own, which have a mark (see refuse()), come from a publish() in somebody's trigger, and are not meant for the client.
CREATE OR REPLACE FUNCTION realtime.verdict_of(p_state text, p_message text, p_mark text)
RETURNS text LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN CASE
        WHEN p_mark = 'realtime_no_channel' THEN 'no'
        WHEN p_state LIKE '22%' AND p_mark NOT LIKE 'realtime%' THEN format('no %s %s', p_state, p_message)
        ELSE format('%s %s', p_state, p_message) END;
END
$$;

-- Return a verdict as it is, with another line if it is a no: {"reason", "pattern", "policies"}, for the operator's log and nobody
-- else, since it tells a channel that does not exist from one that is disabled or forbidden. Used after a no only, so it may cost
-- something, but not much: of thousands of disabled patterns it finds only the name itself, or a prefix of it and a percent sign.
CREATE OR REPLACE FUNCTION realtime.explain_no(p_verdict text, p_table regclass, p_commands "char"[], p_role text, p_channel text)
RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    v_id uuid := (realtime.find_channel(p_channel)).id;
    v_pattern text;
    v_policies text;
    v_reason text;
BEGIN
    IF v_id IS NULL THEN
        IF realtime.is_name(p_channel) AND pg_relation_size('realtime.channels'::regclass) <= 8192 THEN
            SELECT pattern INTO v_pattern FROM realtime.channels WHERE NOT enabled AND (p_channel LIKE pattern OR p_channel = pattern)
            ORDER BY p_channel = pattern DESC, realtime.count_literals(pattern) DESC, pattern COLLATE "C" LIMIT 1;
        ELSIF realtime.is_name(p_channel) THEN
            SELECT pattern INTO v_pattern FROM realtime.channels WHERE NOT enabled AND pattern = ANY (array_append(
                ARRAY (SELECT concat(left(p_channel, n), '%') FROM generate_series(0, length(p_channel)) n), p_channel))
            ORDER BY length(pattern) DESC LIMIT 1;
        END IF;
        v_reason := CASE WHEN v_pattern IS NULL THEN 'no such channel' ELSE 'the channel is disabled' END;
    ELSE
        SELECT pattern INTO v_pattern FROM realtime.channels WHERE id = v_id;
        SELECT string_agg(p.polname, ', ' ORDER BY p.polname) INTO v_policies FROM pg_policy p
        WHERE p.polrelid = p_table AND p.polcmd = ANY (p_commands) AND p.polpermissive
          AND EXISTS (SELECT FROM unnest(p.polroles) t (oid) WHERE t.oid = 0 OR pg_has_role(p_role, t.oid, 'USAGE'));
        v_reason := CASE WHEN p_verdict LIKE 'no 22%' THEN 'a policy could not read a value'
            WHEN p_verdict LIKE 'no %' THEN 'refused with an error of its own, by a restrictive policy or a trigger'
            WHEN v_policies IS NULL THEN concat('no policy for the role ', p_role) ELSE 'the policies say no' END;
    END IF;
    RETURN concat(p_verdict, chr(10), json_strip_nulls(
        json_build_object('reason', v_reason, 'pattern', v_pattern, 'policies', v_policies)));
EXCEPTION WHEN OTHERS THEN -- a pattern that LIKE cannot read, mostly; whoever asks gets the no all the same
    RETURN p_verdict;
END
$$;

-- Judge each (role, claims, channel): 'yes', 'no' as from explain_no(), or what verdict_of() makes of an error. Policies run under
-- the caller's search_path. Must be called as a single autocommit statement: every setting made here ends with it.
-- The planner evaluates stable expressions to estimate them, so planning can raise for a channel that does not even
-- concern the policy, or for claims that it does not need. Hence, after an error, a second attempt with an empty channel
-- name and without claims, which makes the plan, and a third for real: only its error is believed.
CREATE OR REPLACE FUNCTION realtime.check_subscribe(p_roles text[], p_claims text[], p_channels text[])
RETURNS text[] LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_verdicts pg_catalog.text[] := '{}';
    v_verdict pg_catalog.text;
    v_claims pg_catalog.text;
    v_channel pg_catalog.text;
    v_mark pg_catalog.text;
    v_id pg_catalog.uuid;
BEGIN
    FOR i IN 1 .. pg_catalog.cardinality(p_channels) LOOP
        v_id := (realtime.find_channel(p_channels[i])).id;
        v_verdict := 'no';
        FOR attempt IN 1 .. CASE WHEN v_id IS NULL THEN 0 ELSE 3 END LOOP
            v_channel := CASE WHEN attempt OPERATOR(pg_catalog.=) 2 THEN '' ELSE p_channels[i] END;
            v_claims := CASE WHEN attempt OPERATOR(pg_catalog.=) 2 THEN '{}' ELSE p_claims[i] END;
            BEGIN
                v_verdict := CASE WHEN realtime.judge_subscribe(p_roles[i], v_claims, v_channel, v_id)
                    THEN 'yes' ELSE 'no' END;
                EXIT WHEN attempt OPERATOR(pg_catalog.<>) 2;
            EXCEPTION WHEN OTHERS THEN
                GET STACKED DIAGNOSTICS v_mark = CONSTRAINT_NAME;
                v_verdict := realtime.verdict_of(SQLSTATE, SQLERRM, v_mark);
            END;
        END LOOP;
        v_verdicts[i] := CASE WHEN v_verdict OPERATOR(pg_catalog.~~) 'no%'
            THEN realtime.explain_no(v_verdict, 'realtime.channels', '{r, *}', p_roles[i], p_channels[i]) ELSE v_verdict END;
    END LOOP;
    RETURN v_verdicts;
END
$$;

-- Insert one message under the INSERT policies of a role. Returns the id that the stamp gave it.
CREATE OR REPLACE FUNCTION realtime.insert_as(
    p_role text, p_claims text, p_setting text, p_channel text, p_event text, p_payload jsonb
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_claims pg_catalog.jsonb := p_claims;
    v_nulls integer := realtime.become(p_role, p_claims, v_claims, p_setting);
    v_setting pg_catalog.text;
BEGIN
    IF p_role OPERATOR(pg_catalog.=) 'authenticated' THEN
        INSERT INTO realtime.messages (channel_name, event_name, payload) VALUES (p_channel, p_event, p_payload);
    ELSIF p_role OPERATOR(pg_catalog.=) 'anon' THEN
        INSERT INTO realtime.messages (channel_name, event_name, payload) VALUES (p_channel, p_event, p_payload);
    ELSE
        INSERT INTO realtime.messages (channel_name, event_name, payload) VALUES (p_channel, p_event, p_payload);
    END IF;
    v_setting := pg_catalog.set_config('role', 'none', true);
    RETURN pg_catalog.current_setting('realtime.message_id');
END
$$;

-- Insert each publication: 'ok' and the message's id, 'no' as from explain_no(), 'invalid' or 'too_large' and why, or what
-- verdict_of() makes of an error. Each stands alone: one that fails costs no other its message, though all of a call share one
-- transaction. The attempts are those of check_subscribe; what the second one did is undone.
CREATE OR REPLACE FUNCTION realtime.publish_as(
    p_roles text[], p_claims text[], p_channels text[], p_events text[], p_payloads text[]
) RETURNS text[] LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_verdicts pg_catalog.text[] := '{}';
    v_verdict pg_catalog.text;
    v_payload pg_catalog.jsonb;
    v_setting pg_catalog.text;
    v_claims pg_catalog.text;
    v_mark pg_catalog.text;
BEGIN
    FOR i IN 1 .. pg_catalog.cardinality(p_channels) LOOP
        BEGIN
            v_payload := p_payloads[i];
            v_verdict := CASE
                WHEN realtime.is_name(p_channels[i]) IS NOT TRUE THEN realtime.fault_of_name('channel', p_channels[i])
                WHEN realtime.is_well_formed(p_events[i], v_payload) AND realtime.is_name(p_events[i])
                    AND realtime.is_small(v_payload) THEN NULL
                ELSE realtime.fault(p_events[i], v_payload) END;
        EXCEPTION WHEN data_exception THEN
            v_verdict := 'invalid PostgreSQL cannot store this payload as jsonb';
        END;
        FOR attempt IN 1 .. CASE WHEN v_verdict IS NULL THEN 3 ELSE 0 END LOOP
            v_setting := CASE WHEN attempt OPERATOR(pg_catalog.=) 2 THEN '' ELSE p_channels[i] END;
            v_claims := CASE WHEN attempt OPERATOR(pg_catalog.=) 2 THEN '{}' ELSE p_claims[i] END;
            BEGIN
                v_verdict := pg_catalog.concat('ok ', realtime.insert_as(
                    p_roles[i], v_claims, v_setting, p_channels[i], p_events[i], v_payload));
                EXIT WHEN attempt OPERATOR(pg_catalog.<>) 2;
                RAISE 'undo';
            EXCEPTION
                WHEN insufficient_privilege THEN
                    -- A refusal by the policies has this code too; only a missing grant begins like that. Anything else is a trigger's.
                    v_verdict := CASE
                        WHEN SQLERRM OPERATOR(pg_catalog.~~) 'permission denied%' THEN pg_catalog.concat(SQLSTATE, ' ', SQLERRM)
                        WHEN SQLERRM OPERATOR(pg_catalog.~~) 'new row violates row-level security policy for table%' THEN 'no'
                        ELSE pg_catalog.concat('no ', SQLSTATE, ' ', SQLERRM) END;
                    EXIT WHEN attempt OPERATOR(pg_catalog.<>) 2;
                WHEN OTHERS THEN
                    GET STACKED DIAGNOSTICS v_mark = CONSTRAINT_NAME;
                    v_verdict := realtime.verdict_of(SQLSTATE, SQLERRM, v_mark);
                    EXIT WHEN v_verdict OPERATOR(pg_catalog.=) 'no' AND attempt OPERATOR(pg_catalog.<>) 2;
            END;
        END LOOP;
        v_verdicts[i] := CASE WHEN v_verdict OPERATOR(pg_catalog.~~) 'no%'
            THEN realtime.explain_no(v_verdict, 'realtime.messages', '{a, *}', p_roles[i], p_channels[i]) ELSE v_verdict END;
    END LOOP;
    RETURN v_verdicts;
END
$$;

-- Publish lists of messages as the system: $1 has the length of each list, the others all their messages one after
-- the other. For each list: {"ids": [...]}, with null if no enabled channel matches, or {"state", "message", "mark"} of what it
-- raised. A list is published as a whole or not at all, and one that fails costs no other its messages.
CREATE OR REPLACE FUNCTION realtime.publish_lists(p_sizes int[], p_channels text[], p_events text[], p_payloads text[])
RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    v_verdicts pg_catalog.text[] := '{}';
    v_ids pg_catalog.uuid[];
    v_mark pg_catalog.text;
    v_size integer;
    v_next integer := 1;
BEGIN
    FOREACH v_size IN ARRAY p_sizes LOOP
        BEGIN
            v_ids := '{}';
            FOR i IN v_next .. v_next OPERATOR(pg_catalog.+) v_size OPERATOR(pg_catalog.-) 1 LOOP
                v_ids := pg_catalog.array_append(
                    v_ids, realtime.publish(p_channels[i], p_events[i], p_payloads[i]::pg_catalog.jsonb));
            END LOOP;
            v_verdicts := pg_catalog.array_append(v_verdicts, pg_catalog.json_build_object('ids', v_ids)::pg_catalog.text);
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS v_mark = CONSTRAINT_NAME;
            v_verdicts := pg_catalog.array_append(v_verdicts, pg_catalog.json_build_object(
                'state', SQLSTATE, 'message', SQLERRM, 'mark', v_mark)::pg_catalog.text);
        END;
        v_next := v_next OPERATOR(pg_catalog.+) v_size;
    END LOOP;
    RETURN v_verdicts;
END
$$;

REVOKE ALL ON FUNCTION
    realtime.become(text, text, jsonb, text), realtime.judge_subscribe(text, text, text, uuid), realtime.verdict_of(text, text, text),
    realtime.explain_no(text, regclass, "char"[], text, text),
    realtime.check_subscribe(text[], text[], text[]), realtime.insert_as(text, text, text, text, text, jsonb),
    realtime.publish_as(text[], text[], text[], text[], text[]), realtime.publish_lists(int[], text[], text[], text[])
FROM PUBLIC, anon, authenticated;
