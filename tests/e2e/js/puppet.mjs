// A process in which clients of an SDK live: one command a line on standard input, one JSON object a line on standard output.
//   in   {id, client, call, args}          a method of the client's `realtime`, or one of the verbs below
//   out  {id, result} | {id, error}        its answer
//   out  {client, event, data}             an event that the client listens to
// It ends with its standard input, so it never outlives the test. One table of cases drives every SDK by these commands.
import { createInterface } from 'node:readline'

const clients = new Map()
const handlers = new Map()

const plain = (_, value) =>
  value instanceof Error ? { message: value.message, data: value.data } : value
const print = (object) => process.stdout.write(JSON.stringify(object, plain) + '\n')

const verbs = {
  // `tokens`: a list, of which each handshake takes the next, and the last one for ever.
  create(createClient, client, { tokens, ...config }) {
    if (tokens) config.accessToken = async () => (tokens.length > 1 ? tokens.shift() : tokens[0])
    clients.set(client, createClient(config).realtime)
  },
  on(realtime, client, event) {
    const handler = (data) => print({ client, event, data })
    handlers.set(`${client} ${event}`, handler)
    realtime.on(event, handler)
  },
  once: (realtime, client, event) => void realtime.once(event, (data) => print({ client, event, data })),
  off: (realtime, client, event) => realtime.off(event, handlers.get(`${client} ${event}`)),
  // `subscribe`, which says `told` at each confirmation.
  subscribeTold: (realtime, client, channel) =>
    realtime.subscribe(channel, { onSubscribed: (data) => print({ client, event: 'told', data }) }),
  state: (realtime) => ({
    isConnected: realtime.isConnected,
    connectionState: realtime.connectionState,
    socketId: realtime.socketId ?? null,
    channels: realtime.getSubscribedChannels()
  }),
  // JSON cannot say it, so a command line cannot either.
  publishUnsayable(realtime, _, channel, what, ack) {
    const cycle = {}
    cycle.self = cycle
    const payload = {
      NaN: { deep: [{ n: Number.NaN }] },
      Infinity: { n: Number.POSITIVE_INFINITY },
      '-Infinity': { n: Number.NEGATIVE_INFINITY },
      half: { text: 'a\ud83d' },
      key: { 'a\ude00': 1 },
      cycle,
      alien: { n: 1n }
    }[what]
    const half = '\ud800'
    const [to, event] = [what === 'channel' ? half : channel, what === 'event' ? half : 'said']
    return realtime.publish(to, event, payload ?? {}, { ack })
  },
  subscribeUnsayable: (realtime) => realtime.subscribe('chat:\ud800'),
  // Every state that `connect` goes through.
  async connectWatched(realtime) {
    const seen = [realtime.connectionState]
    let done = false
    const connecting = realtime.connect().finally(() => (done = true))
    while (!done) {
      if (seen.at(-1) !== realtime.connectionState) seen.push(realtime.connectionState)
      await new Promise(setImmediate)
    }
    await connecting
    if (seen.at(-1) !== realtime.connectionState) seen.push(realtime.connectionState)
    return seen
  }
}

// Obey until the end of the standard input. `createClient` is the SDK's.
export function obey(createClient) {
  const lines = createInterface({ input: process.stdin })
  lines.on('close', () => process.exit(0))
  lines.on('line', async (line) => {
    const { id, client, call, args } = JSON.parse(line)
    const realtime = call === 'create' ? createClient : clients.get(client)
    try {
      const result = await (verbs[call] ? verbs[call](realtime, client, ...args) : realtime[call](...args))
      print({ id, result: result ?? null })
    } catch (error) {
      print({ id, error })
    }
  })
}
