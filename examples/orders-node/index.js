// Prints each change of an order, until Ctrl-C:
//
//   REALTIME_TOKEN=… node index.js ORDER_ID [URL]
//
// `make dev` in the root of this repository starts a server with orders in it, and prints a token.
import { createClient } from '@insforge-realtime/client'

const [orderId, url = 'http://127.0.0.1:7130'] = process.argv.slice(2)
if (!orderId || !process.env.REALTIME_TOKEN) {
  console.error('usage: REALTIME_TOKEN=… node index.js ORDER_ID [URL]')
  process.exit(2)
}

const { realtime } = createClient({
  baseUrl: url,
  // Called at every handshake: in a real program, whatever refreshes your token.
  accessToken: async () => process.env.REALTIME_TOKEN
})

realtime.on('connect', () => console.error('connected'))
realtime.on('connect_error', (error) => console.error('cannot connect:', error.message))
realtime.on('disconnect', (reason) => console.error('disconnected:', reason))
realtime.on('error', ({ code, message }) => console.error('error:', code, message))
realtime.on('UPDATE_order', ({ id, status, total, meta }) => {
  console.log(`${meta.timestamp}  ${id}  ${status}  ${total}`)
})

const { ok, error } = await realtime.subscribe(`order:${orderId}`, {
  // The first time, and after each reconnect. Earlier changes did not arrive as messages, so a real program reads the order now.
  onSubscribed: ({ renewed }) => console.error(renewed ? 'subscribed again' : 'subscribed')
})
if (!ok) {
  console.error(`cannot subscribe to order:${orderId}: ${error.code}: ${error.message}`)
  process.exit(1)
}
console.error(`waiting for changes of order ${orderId}`)

for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => realtime.disconnect())
