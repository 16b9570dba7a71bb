// What a client gets of the subprotocols that it offers. Arguments: the server's URL, a token.
// Prints one JSON object a line, for each offer: what socket.io-client was given, or its error.
import { io } from 'socket.io-client'

const [url, token] = process.argv.slice(2)

for (const protocols of [['app.v2', 'app.v1'], ['app.v1'], []]) {
  const socket = io(url, { transports: ['websocket'], auth: { token }, protocols, reconnection: false, forceNew: true })
  const error = await new Promise((resolve) => {
    socket.on('connect', () => resolve(null)).on('connect_error', (problem) => resolve(problem.message))
  })
  const protocol = error === null ? socket.io.engine.transport.ws.protocol : null
  process.stdout.write(JSON.stringify({ protocols, protocol, error }) + '\n')
  socket.disconnect()
}
