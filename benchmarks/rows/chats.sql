-- The application of the rows P5 and P6: chats with members. Only a chat's members may hear it or write to it. The same
-- table and the same policies for us and for the incumbent. Chat n is that of user n alone; see load/identities.py.

-- chat_members: 10 000 chats of one member each.
CREATE TABLE public.chat_members (
    user_id uuid NOT NULL,
    chat_id uuid NOT NULL,
    PRIMARY KEY (user_id, chat_id)
);
INSERT INTO public.chat_members
SELECT ('5eed0000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, ('c4a70000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid
FROM generate_series(0, 9999) n;

-- The watcher of P6 is a member of the first twenty.
INSERT INTO public.chat_members
SELECT '5eedffff-0000-4000-8000-000000000000'::uuid, ('c4a70000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid
FROM generate_series(0, 19) n;
GRANT SELECT ON public.chat_members TO authenticated;
ANALYZE public.chat_members;

-- One pattern for all chats.
INSERT INTO realtime.channels (pattern) VALUES ('chat:%');

-- Who may hear a chat.
CREATE POLICY members_hear ON realtime.channels FOR SELECT TO authenticated
USING (pattern = 'chat:%' AND EXISTS (
    SELECT FROM public.chat_members
    WHERE chat_id::text = split_part(realtime.channel_name(), ':', 2) AND user_id = auth.uid()));

-- Who may write to it.
CREATE POLICY members_write ON realtime.messages FOR INSERT TO authenticated
WITH CHECK (channel_name LIKE 'chat:%' AND EXISTS (
    SELECT FROM public.chat_members
    WHERE chat_id::text = split_part(channel_name, ':', 2) AND user_id = auth.uid()));
