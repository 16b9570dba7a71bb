// socket.io-client as a puppet: one command a line on standard input, one JSON object a line on standard output.
//   in   {id, client, call, args}                one of the verbs below
//   out  {id, result} | {id, error}              its answer
//   out  {client, event, data, transport}        any event that arrived, and what it came by
// What the clients go through is in tests/support/scenario.py. It ends with its standard input, so it never outlives the test.
import { createInterface } from 'node:readline'
import { io, NodeWebSocket, NodeXHR } from 'socket.io-client'

const clients = new Map()
const plain = (_, value) => (value instanceof Error ? { message: value.message, data: value.data } : value)
const print = (object) => process.stdout.write(JSON.stringify(object, plain) + '\n')

// A WebSocket that opens when it is told to: so that an upgrade happens in the middle of a stream, and not by chance.
const lateWebSocket = (told) =>
  class extends NodeWebSocket {
    doOpen() {
      told.then(() => super.doOpen())
    }
  }

const verbs = {
  // The options are JSON, so `late` stands for transport classes: the upgrade waits for `upgrade`.
  connect(_, name, url, { late, ...options }) {
    if (late) {
      const told = new Promise((resolve) => clients.set(`${name} upgrade`, resolve))
      options.transports = [NodeXHR, lateWebSocket(told)]
    }
    const socket = io(url, { forceNew: true, ...options })
    clients.set(name, socket)
    const say = (event, data) => print({ client: name, event, data, transport: socket.io.engine?.transport?.name })
    socket.onAny(say)
    for (const event of ['connect', 'disconnect', 'connect_error']) socket.on(event, (data) => say(event, data))
  },
  upgrade: (_, name) => clients.get(`${name} upgrade`)(),
  ask: (socket, _, event, data) => socket.timeout(20_000).emitWithAck(event, data),
  transport: (socket) => socket.io.engine.transport.name,
  disconnect: (socket) => void socket.disconnect()
}

const lines = createInterface({ input: process.stdin })
lines.on('close', () => process.exit(0))
lines.on('line', async (line) => {
  const { id, client, call, args } = JSON.parse(line)
  try {
    print({ id, result: (await verbs[call](clients.get(client), client, ...args)) ?? null })
  } catch (error) {
    print({ id, error })
  }
})
