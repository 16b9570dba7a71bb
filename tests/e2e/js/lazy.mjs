// Whether socket.io-client is in memory once a client is made, and once it is connected. Arguments: `import` or `require`, the
// server's URL, a token. Which modules are in memory is asked of a loader hook, which sees each that is resolved.
import { createRequire, register } from 'node:module'
import { MessageChannel } from 'node:worker_threads'

const [how, url, token] = process.argv.slice(2)
const { port1, port2 } = new MessageChannel()
const hook = `
  let port
  export const initialize = (data) => (port = data)
  export const resolve = (specifier, context, next) => (port.postMessage(specifier), next(specifier, context))
`
register(`data:text/javascript,${encodeURIComponent(hook)}`, { data: port2, transferList: [port2] })
const seen = new Set()
port1.on('message', (specifier) => seen.add(specifier)).unref()
let asked = 0
/** The hook tells from a thread of its own, in order: once it has told of a module imported now, it has told of all before. */
async function loaded() {
  const mark = `data:text/javascript,${asked++}`
  await import(mark)
  while (!seen.has(mark)) await new Promise(setImmediate)
  return seen.has('socket.io-client')
}
const print = (object) => process.stdout.write(JSON.stringify(object) + '\n')

const dist = '../../../clients/js/dist/index'
const { createClient } =
  how === 'import' ? await import(`${dist}.js`) : createRequire(import.meta.url)(`${dist}.cjs`)
const { realtime } = createClient({ baseUrl: url, accessToken: token })
print({ created: await loaded() })
await realtime.connect()
print({ connected: await loaded() })
realtime.disconnect()
