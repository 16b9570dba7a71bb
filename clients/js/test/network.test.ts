// @vitest-environment happy-dom

import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { CHANNELS, type Channels } from '../src/channels'
import { createClient } from '../src/index'

// Nobody listens there, and the back-off is longer than the test may take.
const client = createClient({
  baseUrl: 'http://127.0.0.1:1',
  reconnectDelay: 60_000,
  reconnectDelayMax: 60_000
})
const channels = (client as unknown as Record<symbol, Channels>)[CHANNELS]
const failed = vi.fn()
let release = () => {}

beforeEach(() => {
  failed.mockClear()
  client.realtime.on('connect_error', failed)
  release = channels?.hold('a', { changed: () => {}, event: () => {} }) ?? release
})
afterEach(() => {
  release()
  client.realtime.disconnect()
})

const failures = (number: number) =>
  vi.waitFor(() => expect(failed).toHaveBeenCalledTimes(number), { timeout: 10_000 })

test.each(['online', 'visibilitychange'])('%s ends the back-off', async (event) => {
  await failures(1)
  const target = event === 'online' ? window : document
  target.dispatchEvent(new Event(event))
  await failures(2)
  expect(client.realtime.connectionState).toBe('connecting')
})

test('after disconnect the network is watched no more', async () => {
  await failures(1)
  client.realtime.disconnect()
  const added = vi.spyOn(window, 'addEventListener')
  window.dispatchEvent(new Event('online'))
  document.dispatchEvent(new Event('visibilitychange'))
  expect(client.realtime.connectionState).toBe('disconnected')
  expect(added).not.toHaveBeenCalled()
})

test('connect during a back-off does not shorten it, so a listener that calls it makes no hot loop', async () => {
  await failures(1)
  const waiting = client.realtime.connect()
  await new Promise((resolve) => setImmediate(resolve))
  expect(failed).toHaveBeenCalledOnce()
  client.realtime.disconnect()
  await expect(waiting).rejects.toThrow('Disconnected')
})
