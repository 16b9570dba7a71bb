-- Every trigger of the schema `realtime`, as steps (how a step is written is told in migrations/0001_tables.sql). Their
-- conditions are asked by each `migrate`: a trigger that is as it should be is left alone, because replacing one takes a lock
-- that waits for every transaction that has published, and all writers would wait behind it.
--
-- ENABLE ALWAYS or not. In sessions with session_replication_role = replica (the apply workers of logical replication, some
-- restores) only triggers that are ALWAYS fire. An application's own ALWAYS trigger may publish there, and its messages are to
-- arrive like all others:
--
--     retire_copy, keep_history   ALWAYS: a replicated realtime.messages is what they are for.
--     queue_webhooks              ALWAYS: a message has its webhooks whoever wrote the row. A copy has none (its xid).
--     ring                        ALWAYS: or messages would wait for the fallback. For copies too, which costs a look.
--     stamp_message, stamp_sender not: an apply worker need not be the owner, and would stamp copies as users' new messages.
--                                 No client gets around the stamp: session_replication_role is a superuser's.
--
-- BEFORE triggers fire in the order of their names: retire_copy, then the stamps, which know a copy by its xid. CREATE OR
-- REPLACE makes a trigger one that is not ALWAYS again.

--: put the trigger retire_copy in place: rows with another transaction's id are never delivered
--? NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = to_regclass('realtime.messages') AND tgname = 'retire_copy' AND tgenabled = 'A' AND pg_get_triggerdef(oid) = 'CREATE TRIGGER retire_copy BEFORE INSERT ON realtime.messages FOR EACH ROW WHEN (((new.xid <> pg_current_xact_id()) OR (new.created_at IS DISTINCT FROM now()))) EXECUTE FUNCTION realtime.retire_copy()')
--! ALTER TABLE realtime.messages OWNER TO {user}
-- The condition is all that an ordinary insert pays. Two clusters' transaction ids may be the same by chance, hence its second
-- half.
CREATE OR REPLACE TRIGGER retire_copy BEFORE INSERT ON realtime.messages
FOR EACH ROW WHEN (NEW.xid <> pg_current_xact_id() OR NEW.created_at IS DISTINCT FROM now())
EXECUTE FUNCTION realtime.retire_copy();
ALTER TABLE realtime.messages ENABLE ALWAYS TRIGGER retire_copy;

--: put the trigger keep_history in place: no update makes a delivered row a new one
--? NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = to_regclass('realtime.messages') AND tgname = 'keep_history' AND tgenabled = 'A' AND pg_get_triggerdef(oid) = 'CREATE TRIGGER keep_history BEFORE UPDATE OF xid, seq ON realtime.messages FOR EACH ROW WHEN (((new.xid <> old.xid) OR (new.seq <> old.seq))) EXECUTE FUNCTION realtime.retire_copy()')
--! ALTER TABLE realtime.messages OWNER TO {user}
-- The counters' updates do not name these columns, and pay nothing; replicated ones name all.
CREATE OR REPLACE TRIGGER keep_history BEFORE UPDATE OF xid, seq ON realtime.messages
FOR EACH ROW WHEN (NEW.xid <> OLD.xid OR NEW.seq <> OLD.seq) EXECUTE FUNCTION realtime.retire_copy();
ALTER TABLE realtime.messages ENABLE ALWAYS TRIGGER keep_history;

--: put the trigger stamp_message in place: whatever anyone but the owner inserts is a user's message
--? NOT EXISTS (SELECT FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE c.oid = to_regclass('realtime.messages') AND t.tgname = 'stamp_message' AND t.tgenabled = 'O' AND pg_get_triggerdef(t.oid) = format('CREATE TRIGGER stamp_message BEFORE INSERT ON realtime.messages FOR EACH ROW WHEN ((CURRENT_USER <> %L::text)) EXECUTE FUNCTION realtime.stamp_message()', pg_get_userbyid(c.relowner)))
--! ALTER TABLE realtime.messages OWNER TO {user}
-- The condition is evaluated as whoever inserts, hence the owner's name in it: inside publish() that is the owner. As text, since
-- conditions are parsed for each statement, and a name is 64 bytes.
DO $$
BEGIN
    EXECUTE format(
        'CREATE OR REPLACE TRIGGER stamp_message BEFORE INSERT ON realtime.messages
         FOR EACH ROW WHEN (current_user <> %L::text) EXECUTE FUNCTION realtime.stamp_message()',
        (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'realtime.messages'::regclass));
    ALTER TABLE realtime.messages ENABLE TRIGGER stamp_message;
END
$$;

--: put the trigger stamp_sender in place: whatever anyone but the owner inserts bears the name of whoever asks
--? NOT EXISTS (SELECT FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE c.oid = to_regclass('realtime.messages') AND t.tgname = 'stamp_sender' AND t.tgenabled = 'O' AND pg_get_triggerdef(t.oid) = format('CREATE TRIGGER stamp_sender BEFORE INSERT ON realtime.messages FOR EACH ROW WHEN (((CURRENT_USER <> %L::text) AND (new.xid <> ''0''::xid8))) EXECUTE FUNCTION realtime.stamp_sender()', pg_get_userbyid(c.relowner)))
--! ALTER TABLE realtime.messages OWNER TO {user}
-- After the stamp, by its name: what still has the xid 0 then is a copy, and keeps its sender.
DO $$
BEGIN
    EXECUTE format(
        'CREATE OR REPLACE TRIGGER stamp_sender BEFORE INSERT ON realtime.messages
         FOR EACH ROW WHEN (current_user <> %L::text AND NEW.xid <> ''0''::xid8) EXECUTE FUNCTION realtime.stamp_sender()',
        (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'realtime.messages'::regclass));
    ALTER TABLE realtime.messages ENABLE TRIGGER stamp_sender;
END
$$;

--: put the trigger queue_webhooks in place: a message is queued for each webhook of its channel
--? NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = to_regclass('realtime.messages') AND tgname = 'queue_webhooks' AND tgenabled = 'A' AND pg_get_triggerdef(oid) = 'CREATE TRIGGER queue_webhooks AFTER INSERT ON realtime.messages FOR EACH ROW WHEN ((new.wh_audience_count > 0)) EXECUTE FUNCTION realtime.queue_webhooks()')
--! ALTER TABLE realtime.messages OWNER TO {user}
-- The condition is all that a message of a channel without webhooks pays.
CREATE OR REPLACE TRIGGER queue_webhooks AFTER INSERT ON realtime.messages
FOR EACH ROW WHEN (NEW.wh_audience_count > 0) EXECUTE FUNCTION realtime.queue_webhooks();
ALTER TABLE realtime.messages ENABLE ALWAYS TRIGGER queue_webhooks;

--: put the trigger ring in place: a sleeping feed is woken
--? NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = to_regclass('realtime.messages') AND tgname = 'ring' AND tgenabled = 'A' AND pg_get_triggerdef(oid) = 'CREATE TRIGGER ring AFTER INSERT ON realtime.messages FOR EACH STATEMENT EXECUTE FUNCTION realtime.ring()')
--! ALTER TABLE realtime.messages OWNER TO {user}
CREATE OR REPLACE TRIGGER ring AFTER INSERT ON realtime.messages
FOR EACH STATEMENT EXECUTE FUNCTION realtime.ring();
ALTER TABLE realtime.messages ENABLE ALWAYS TRIGGER ring;
