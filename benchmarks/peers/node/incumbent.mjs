// The incumbent's pipeline, in our own words: a server that gets a NOTIFY for every row.
//
// Each notification: SELECT the message, SELECT its channel, emit to the room, UPDATE the counters; all of them
// concurrently, on a pool of 20, in no order. Each subscribe and each publish is a transaction in the client's role. No
// presence, no webhooks, no limits, no logs. Statements with parameters are prepared once for each connection.
//
//     DATABASE_URL=… JWT_SECRET=… node incumbent.mjs
//
// Prints {"port": n} once it listens. The end of stdin is its end.
import pg from "pg";
import { io, listen } from "./server.mjs";

const { DATABASE_URL } = process.env;
const pool = new pg.Pool({ connectionString: DATABASE_URL, max: 20 });

const MESSAGE = {
  name: "message",
  text: "SELECT id, event_name, channel_id, channel_name, payload, sender_type, sender_id, created_at FROM realtime.messages WHERE id = $1",
};
const CHANNEL = { name: "channel", text: "SELECT id, webhook_urls FROM realtime.channels WHERE id = $1" };
const COUNTERS = { name: "counters", text: "UPDATE realtime.messages SET ws_audience_count = $2, wh_audience_count = $3 WHERE id = $1" };
const SETTING = { name: "setting", text: "SELECT set_config($1, $2, true)" };
const MATCH = { name: "match", text: "SELECT id FROM realtime.channels WHERE enabled AND (pattern = $1 OR $1 LIKE pattern) LIMIT 1" };
const INSERT = {
  name: "insert",
  text: "INSERT INTO realtime.messages (event_name, channel_id, channel_name, payload, sender_type, sender_id) VALUES ($1, $2, $3, $4, 'user', $5)",
};

/** Deliver a row that has been committed. */
async function deliver(id) {
  const message = (await pool.query({ ...MESSAGE, values: [id] })).rows[0];
  if (!message) return;
  const channel = (await pool.query({ ...CHANNEL, values: [message.channel_id] })).rows[0];
  const room = `realtime:${message.channel_name}`;
  const audience = io.sockets.adapter.rooms.get(room)?.size ?? 0;
  io.to(room).emit(message.event_name, {
    ...message.payload,
    meta: {
      channel: message.channel_name,
      messageId: message.id,
      senderType: message.sender_type,
      senderId: message.sender_id ?? undefined,
      timestamp: message.created_at.toISOString(),
    },
  });
  await pool.query({ ...COUNTERS, values: [id, audience, channel?.webhook_urls?.length ?? 0] });
}

/** Run statements in a transaction in the client's role, and return what `work` returns. */
async function asClient(claims, channel, work) {
  const client = await pool.connect();
  try {
    await client.query("BEGIN");
    await client.query("SET LOCAL ROLE authenticated");
    await client.query({ ...SETTING, values: ["request.jwt.claims", JSON.stringify(claims)] });
    await client.query({ ...SETTING, values: ["realtime.channel_name", channel] });
    const result = await work(client);
    await client.query("COMMIT");
    return result;
  } catch (error) {
    await client.query("ROLLBACK");
    throw error;
  } finally {
    client.release();
  }
}

const refused = (error) => ({ ok: false, error: { code: "UNAUTHORIZED", message: String(error?.message ?? error) } });

async function subscribe(socket, { channel }) {
  const found = await asClient(socket.data.claims, channel, (client) => client.query({ ...MATCH, values: [channel] }));
  if (!found.rows.length) return refused("no such channel");
  // Kept for publishing, which needs no look-up of its own then.
  socket.data.channels.set(channel, found.rows[0].id);
  socket.join(`realtime:${channel}`);
  return { ok: true, channel };
}

async function publish(socket, { channel, event, payload }) {
  const id = socket.data.channels.get(channel);
  if (!id) return refused("not subscribed");
  const values = [event, id, channel, payload, socket.data.claims.sub];
  await asClient(socket.data.claims, channel, (client) => client.query({ ...INSERT, values }));
  return { ok: true };
}

function unsubscribe(socket, { channel }) {
  socket.data.channels.delete(channel);
  socket.leave(`realtime:${channel}`);
  return { ok: true, channel };
}

io.on("connection", (socket) => {
  socket.data.channels = new Map();
  const commands = { "realtime:subscribe": subscribe, "realtime:publish": publish, "realtime:unsubscribe": unsubscribe };
  for (const [name, command] of Object.entries(commands)) {
    socket.on(name, async (data, ack) => {
      try {
        ack?.(await command(socket, data));
      } catch (error) {
        ack?.(refused(error));
      }
    });
  }
});

const listener = new pg.Client({ connectionString: DATABASE_URL });
await listener.connect();
listener.on("notification", ({ payload }) => deliver(payload).catch((error) => console.error(error)));
await listener.query("LISTEN incumbent");

process.stdin.resume().on("end", () => process.exit(0));
listen();
