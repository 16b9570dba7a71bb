// The complete example of the official SDK's documentation, with nothing but the import changed, and what it saw as JSON lines.
// Arguments: the module to import, the server's URL, a token, an order. `{"ready": …}` says that it listens; it cleans up and ends
// when its standard input does.
const [module, url, token, orderId] = process.argv.slice(2)
const { createClient } = await import(module)
const seen = (what, ...data) => process.stdout.write(JSON.stringify([what, ...data]) + '\n')

const insforge = createClient({ baseUrl: url, accessToken: token })

// Error handling
insforge.realtime.on('error', (err) => seen('RT Error:', err.code, err.message))
insforge.realtime.on('disconnect', (reason) => seen('Disconnected:', reason))

// Connect and subscribe
await insforge.realtime.connect()
const { ok } = await insforge.realtime.subscribe(`order:${orderId}`)

if (ok) {
  // Listen for events
  insforge.realtime.on('UPDATE_order', (payload) => {
    seen('Order updated:', payload.status)
    seen('Message ID:', payload.meta.messageId)
  })
}
await insforge.realtime.publish('orders', 'nonsense', {}) // not subscribed
seen('ready', ok, insforge.realtime.getSubscribedChannels(), insforge.realtime.connectionState)

// Cleanup
function cleanup() {
  insforge.realtime.unsubscribe(`order:${orderId}`)
  insforge.realtime.disconnect()
}
process.stdin.resume().on('end', () => {
  cleanup()
  seen('clean', insforge.realtime.getSubscribedChannels(), insforge.realtime.connectionState)
})
