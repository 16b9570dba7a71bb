-- What `insforge-realtime dev` shows: orders that belong to users, chat rooms that have members, admins.
-- Applied on every start; whatever is there already stays as it is. Everything here bears the mark of the demo, by which
-- demo_objects (queries/demo.sql) tells it from what an application has made under the same name: that is never touched.

CREATE TABLE IF NOT EXISTS orders (
    id      uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    status  text NOT NULL DEFAULT 'new',
    total   numeric(10, 2) NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS chat_members (
    room_id uuid NOT NULL,
    user_id uuid NOT NULL,
    PRIMARY KEY (room_id, user_id)
);
CREATE TABLE IF NOT EXISTS admins (user_id uuid PRIMARY KEY);

-- Policies run as the role of whoever asks, so that role must be able to read what they read.
GRANT SELECT ON orders, chat_members, admins TO anon, authenticated, project_admin;

INSERT INTO realtime.channels (pattern, description) VALUES
    ('orders', 'Demo: global order events'),
    ('order:%', 'Demo: order-specific events (order:123)'),
    ('chat:%', 'Demo: chat room events')
ON CONFLICT (pattern) DO UPDATE SET description = excluded.description;

-- Public channel: anyone can subscribe
DROP POLICY IF EXISTS "public_subscribe_orders" ON realtime.channels;
CREATE POLICY "public_subscribe_orders"
ON realtime.channels FOR SELECT
TO authenticated
USING (pattern = 'orders');

-- User-specific: only owner can subscribe to their order channel
DROP POLICY IF EXISTS "users_subscribe_own_orders" ON realtime.channels;
CREATE POLICY "users_subscribe_own_orders"
ON realtime.channels FOR SELECT
TO authenticated
USING (
  pattern = 'order:%'
  AND EXISTS (
    SELECT 1 FROM orders
    WHERE id = NULLIF(split_part(realtime.channel_name(), ':', 2), '')::uuid
      AND user_id = auth.uid()
  )
);

-- Members of a chat room can subscribe to it
DROP POLICY IF EXISTS "members_subscribe_chat" ON realtime.channels;
CREATE POLICY "members_subscribe_chat"
ON realtime.channels FOR SELECT
TO authenticated
USING (
  pattern = 'chat:%'
  AND EXISTS (
    SELECT 1 FROM chat_members
    WHERE room_id = NULLIF(split_part(realtime.channel_name(), ':', 2), '')::uuid
      AND user_id = auth.uid()
  )
);

-- Only admins can publish to order channels
DROP POLICY IF EXISTS "admins_publish_orders" ON realtime.messages;
CREATE POLICY "admins_publish_orders"
ON realtime.messages FOR INSERT
TO authenticated
WITH CHECK (
  channel_name LIKE 'order:%'
  AND EXISTS (SELECT 1 FROM admins WHERE user_id = auth.uid())
);

-- Users can publish to chat rooms they're members of
DROP POLICY IF EXISTS "members_publish_chat" ON realtime.messages;
CREATE POLICY "members_publish_chat"
ON realtime.messages FOR INSERT
TO authenticated
WITH CHECK (
  channel_name LIKE 'chat:%'
  AND EXISTS (
    SELECT 1 FROM chat_members
    WHERE room_id = NULLIF(split_part(channel_name, ':', 2), '')::uuid
      AND user_id = auth.uid()
  )
);

CREATE OR REPLACE FUNCTION notify_order_changes()
RETURNS TRIGGER AS $$
BEGIN
  PERFORM realtime.publish(
    'order:' || NEW.id::text,           -- channel name
    TG_OP || '_order',                   -- event: INSERT_order, UPDATE_order, DELETE_order
    jsonb_build_object(
      'id', NEW.id,
      'status', NEW.status,
      'total', NEW.total
    )
  );
  RETURN NEW;
END;
$$ LANGUAGE plpgsql SECURITY DEFINER;

DROP TRIGGER IF EXISTS order_realtime ON orders;
CREATE TRIGGER order_realtime
  AFTER INSERT OR UPDATE ON orders
  FOR EACH ROW
  EXECUTE FUNCTION notify_order_changes();

-- Alice and Bob. Both are in the chat room; Alice is an admin.
INSERT INTO chat_members VALUES
    ('c0000000-0000-4000-8000-000000000001', 'a11ce000-0000-4000-8000-000000000001'),
    ('c0000000-0000-4000-8000-000000000001', 'b0b00000-0000-4000-8000-000000000002')
ON CONFLICT DO NOTHING;
INSERT INTO admins VALUES ('a11ce000-0000-4000-8000-000000000001') ON CONFLICT DO NOTHING;
INSERT INTO orders (id, user_id, status, total) VALUES
    ('0de40000-0000-4000-8000-000000000001', 'a11ce000-0000-4000-8000-000000000001', 'new', 19.90),
    ('0de40000-0000-4000-8000-000000000002', 'b0b00000-0000-4000-8000-000000000002', 'new', 42.00),
    ('0de40000-0000-4000-8000-000000000003', 'a11ce000-0000-4000-8000-000000000001', 'paid', 7.50)
ON CONFLICT DO NOTHING;

-- The mark.
COMMENT ON TABLE orders IS 'Made by the demo of insforge-realtime dev';
COMMENT ON TABLE chat_members IS 'Made by the demo of insforge-realtime dev';
COMMENT ON TABLE admins IS 'Made by the demo of insforge-realtime dev';
COMMENT ON FUNCTION notify_order_changes() IS 'Made by the demo of insforge-realtime dev';
COMMENT ON POLICY "public_subscribe_orders" ON realtime.channels IS 'Made by the demo of insforge-realtime dev';
COMMENT ON POLICY "users_subscribe_own_orders" ON realtime.channels IS 'Made by the demo of insforge-realtime dev';
COMMENT ON POLICY "members_subscribe_chat" ON realtime.channels IS 'Made by the demo of insforge-realtime dev';
COMMENT ON POLICY "admins_publish_orders" ON realtime.messages IS 'Made by the demo of insforge-realtime dev';
COMMENT ON POLICY "members_publish_chat" ON realtime.messages IS 'Made by the demo of insforge-realtime dev';
