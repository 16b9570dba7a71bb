// socket.io-client by itself, without the SDK: what anybody may write. Arguments: the server's URL, a token, a room.
// Prints one JSON object a line: what it saw, in order.
import { io } from 'socket.io-client'

const [url, token, room] = process.argv.slice(2)
const print = (what, data) => process.stdout.write(JSON.stringify({ what, data }) + '\n')

const socket = io(url, { transports: ['websocket'], auth: { token }, reconnection: false })
socket.onAny((event, data) => print(event, data))
const arrived = new Promise((resolve) => socket.once('said', resolve))
await new Promise((resolve, reject) => socket.on('connect', resolve).on('connect_error', reject))

const ask = (name, data) => socket.timeout(10_000).emitWithAck(name, data)
const publish = { channel: room, event: 'said', payload: { text: 'hello' } }
print('refused', await ask('realtime:publish', publish))
print('subscribed', await ask('realtime:subscribe', { channel: room }))
print('published', await ask('realtime:publish', publish))
await arrived // the ack says that it is committed; whoever leaves before the feed brings it back does not get it
print('malformed', await ask('realtime:publish', { ...publish, payload: 'text' }))
print('unsubscribed', await ask('realtime:unsubscribe', { channel: room }))
print('unknown', await ask('realtime:nonsense', { channel: room }))
socket.disconnect()

// What it does by itself: HTTP long-polling first, and then the upgrade.
const byItself = io(url, { auth: { token }, reconnection: false })
await new Promise((resolve, reject) => byItself.on('connect', resolve).on('connect_error', reject))
const { engine } = byItself.io
if (engine.transport.name !== 'websocket') await new Promise((resolve) => engine.once('upgrade', resolve))
print('default', engine.transport.name)
byItself.disconnect()
