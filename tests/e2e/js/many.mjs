// Many SDK clients on one channel, three of which leave in the middle. Arguments: the server's URL, a token, the channel,
// the number of clients, the number at which the three leave. Every message is {n}, numbered from 1; the event `end`
// ends it. Prints {"ready": true} once all are subscribed, and at the end what each of them received.
import { createClient } from '@insforge/sdk'

const [url, token, channel, number, middle] = process.argv.slice(2)
const print = (object) => process.stdout.write(JSON.stringify(object) + '\n')
process.stdin.resume().on('end', () => process.exit(1)) // the test has ended before us

const leave = [
  (realtime) => realtime.unsubscribe(channel),
  (realtime) => realtime.disconnect(),
  (realtime) => (realtime.unsubscribe(channel), realtime.disconnect())
]
const clients = Array.from({ length: Number(number) }, (_, index) => {
  const { realtime } = createClient({ baseUrl: url, accessToken: token })
  const client = { realtime, received: [], errors: [], left: false, leaves: leave[index] }
  client.ended = new Promise((resolve) => realtime.on('end', resolve))
  realtime.on('error', (error) => client.errors.push(error))
  realtime.on('disconnect', (reason) => client.errors.push(reason))
  realtime.on('numbered', ({ n }) => {
    client.received.push(n)
    if (n >= Number(middle) && client.leaves && !client.left) {
      client.left = true
      client.leaves(realtime)
    }
  })
  return client
})

const acks = await Promise.all(clients.map(({ realtime }) => realtime.subscribe(channel)))
print({ ready: acks.every(({ ok }) => ok) })
await Promise.all(clients.filter(({ leaves }) => !leaves).map(({ ended }) => ended))
print(
  clients.map(({ received, errors, left }) => ({
    left,
    errors: left ? [] : errors,
    received: received.length,
    inOrder: received.every((n, index) => n === index + 1)
  }))
)
process.exit(0)
