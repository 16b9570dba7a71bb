// Our SDK where a program has what React Native gives it, and nothing else: no `process`, no `location`, no `document`, a
// `window` that nobody can listen to, and, before React Native 0.80, a URL that knows nothing of itself.
//   node react_native.mjs KIND URL TOKEN CHANNEL     prints what happens, a JSON object a line
import { readFileSync } from 'node:fs'
import { createContext, runInContext } from 'node:vm'
import WebSocket from 'ws'

const [kind, baseUrl, accessToken, channel] = process.argv.slice(2)
const print = (line) => console.log(JSON.stringify(line))

class OldUrl {
  #url
  constructor(url) {
    this.#url = url.endsWith('/') ? url : `${url}/`
  }
  get href() {
    return this.toString()
  }
  toString() {
    return this.#url
  }
}
for (const part of 'hash host hostname origin password pathname port protocol search username'.split(' ')) {
  Object.defineProperty(OldUrl.prototype, part, {
    get() {
      throw new Error(`URL.${part} is not implemented`)
    }
  })
}

// Its constructor has a third argument, which engine.io-client gives where `navigator.product` says ReactNative.
class NativeSocket extends WebSocket {
  constructor(url, protocols, options) {
    super(url, protocols ?? [], options?.headers ? { headers: options.headers } : {})
  }
}

const native = { setTimeout, clearTimeout, setInterval, clearInterval, queueMicrotask, console, WebSocket: NativeSocket }
const kinds = {
  'before 0.80': { URL: OldUrl, navigator: { product: 'ReactNative' } },
  'from 0.80': { URL, navigator: { product: 'ReactNative' } },
  'no URL': { navigator: { product: 'ReactNative' } },
  'no navigator': { URL: OldUrl },
  // As libraries for React Native pretend to.
  'half a document': {
    URL: OldUrl,
    navigator: { product: 'ReactNative' },
    document: {},
    addEventListener() {}
  }
}

const globals = createContext({ ...native, ...kinds[kind] })
globals.window = globals.self = globals
runInContext(readFileSync(new URL('../../../clients/js/dist/insforge-realtime.global.js', import.meta.url), 'utf8'), globals)
globals.options = { baseUrl, accessToken }
const { realtime } = runInContext('InsForgeRealtime.createClient(options)', globals)

realtime.on('disconnect', (reason) => print({ disconnect: reason }))
await realtime.connect()
print({ connected: realtime.isConnected })
print({ subscribed: (await realtime.subscribe(channel)).ok })
const heard = new Promise((resolve) => realtime.once('said', resolve))
print({ published: (await realtime.publish(channel, 'said', { text: 'hello' }, { ack: true })).ok })
print({ heard: (await heard).text })
realtime.disconnect()
print({ state: realtime.connectionState })
