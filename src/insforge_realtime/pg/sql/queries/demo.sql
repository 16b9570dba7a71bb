-- The demo's traffic, and what is in its way. For pg/demo.py; the demo itself is ../demo.sql.

-- name: change_some_order
-- The demo's traffic: move one of the demo's orders on to its next status.
UPDATE orders SET status = CASE status
    WHEN 'new' THEN 'paid' WHEN 'paid' THEN 'shipped' WHEN 'shipped' THEN 'delivered' ELSE 'new' END
WHERE id = (SELECT id FROM orders WHERE id::text LIKE '0de40000-%' ORDER BY id OFFSET $1::int % 3 LIMIT 1);

-- name: demo_objects
-- What there is under the demo's names, and whether the demo made it (demo.sql, which marks it). Some may be an application's.
SELECT f.what, f.note IS NOT DISTINCT FROM 'Made by the demo of insforge-realtime dev' AS ours FROM (
    SELECT 'the table ' || c.oid::regclass, obj_description(c.oid, 'pg_class')
    FROM unnest('{orders, chat_members, admins}'::text[]) n (name) JOIN pg_class c ON c.oid = to_regclass(n.name)
    UNION ALL
    SELECT 'the type ' || t.oid::regtype, NULL
    FROM unnest('{orders, chat_members, admins}'::text[]) n (name) JOIN pg_type t ON t.oid = to_regtype(n.name) AND t.typrelid = 0
    UNION ALL
    SELECT 'the function ' || p.oid::regprocedure, obj_description(p.oid, 'pg_proc')
    FROM pg_proc p WHERE p.oid = to_regprocedure('notify_order_changes()')
    UNION ALL
    SELECT format('the policy %I on %s', p.polname, p.polrelid::regclass), obj_description(p.oid, 'pg_policy')
    FROM pg_policy p WHERE p.polrelid IN ('realtime.channels'::regclass, 'realtime.messages'::regclass) AND p.polname IN (
        'public_subscribe_orders', 'users_subscribe_own_orders', 'members_subscribe_chat', 'admins_publish_orders', 'members_publish_chat')
    UNION ALL
    SELECT 'the channel ' || c.pattern, CASE WHEN c.description LIKE 'Demo: %' THEN 'Made by the demo of insforge-realtime dev' END
    FROM realtime.channels c WHERE c.pattern IN ('orders', 'order:%', 'chat:%')
) f (what, note);
