// What the compiler promises. `tsc` in `npm run check` is what makes these tests fail.

import { useCallback, useEffect } from 'react'
import { expect, expectTypeOf, test } from 'vitest'
import {
  type ConnectError,
  type ConnectionState,
  createClient,
  type MessageMeta,
  type PresenceEvent,
  type PublishResponse,
  type RealtimeErrorPayload,
  type SocketMessage,
  type SubscribedEvent,
  type SubscribeResponse
} from '../src'
import type { Handlers } from '../src/react'

interface Order {
  id: string
  status: 'new' | 'paid'
}

const { realtime } = createClient({ baseUrl: 'http://127.0.0.1' })
const typed = createClient<{ UPDATE_order: Order }>({ baseUrl: 'http://127.0.0.1' }).realtime

test('events of the map are typed, with the meta of the server', () => {
  typed.on('UPDATE_order', (order) => {
    expectTypeOf(order.status).toEqualTypeOf<'new' | 'paid'>()
    expectTypeOf(order.meta).toEqualTypeOf<MessageMeta>()
    // @ts-expect-error: an order has no such field
    order.nothing
  })
  typed.once('UPDATE_order', ({ id }) => expectTypeOf(id).toEqualTypeOf<string>())
  typed.off('UPDATE_order', (order: Order) => order)
})

test("SPEC.md's generic compiles, with and without a map", () => {
  interface MyPayloadType {
    text: string
  }
  for (const either of [realtime, typed]) {
    either.on<MyPayloadType>('my_event', ({ text }) => expectTypeOf(text).toEqualTypeOf<string>())
  }
  realtime.on('my_event', (payload) => expectTypeOf(payload).toEqualTypeOf<SocketMessage>())
})

test('reserved events are typed', () => {
  realtime.on('connect', () => {})
  realtime.on('connect_error', (error) => expectTypeOf(error).toEqualTypeOf<ConnectError>())
  realtime.on('disconnect', (reason) => expectTypeOf(reason).toEqualTypeOf<string>())
  realtime.on('error', (error) => expectTypeOf(error).toEqualTypeOf<RealtimeErrorPayload>())
  realtime.on('realtime:subscribed', (it) => expectTypeOf(it).toEqualTypeOf<SubscribedEvent>())
  realtime.on('presence:join', (it) => expectTypeOf(it).toEqualTypeOf<PresenceEvent>())
})

test('results are typed', () => {
  expectTypeOf(realtime.subscribe).returns.resolves.toEqualTypeOf<SubscribeResponse>()
  expectTypeOf(realtime.connectionState).toEqualTypeOf<ConnectionState>()
  expectTypeOf(realtime.socketId).toEqualTypeOf<string | undefined>()
  const told = () =>
    realtime.subscribe('a', {
      onSubscribed: ({ renewed }) => expectTypeOf(renewed).toEqualTypeOf<boolean>()
    })
  expectTypeOf(told).returns.resolves.toEqualTypeOf<SubscribeResponse>()
  const acked = () => realtime.publish('a', 'b', {}, { ack: true })
  expectTypeOf(acked).returns.resolves.toEqualTypeOf<PublishResponse>()
  const not = () => realtime.publish('a', 'b', {})
  expectTypeOf(not).returns.resolves.toEqualTypeOf<void>()
  expectTypeOf(realtime.on('a', () => {})).toEqualTypeOf<() => void>()
})

test('the handlers of the hook are typed by a map, or free', () => {
  const mapped: Handlers<{ UPDATE_order: Order }> = {
    UPDATE_order: ({ status }) => expectTypeOf(status).toEqualTypeOf<'new' | 'paid'>(),
    disconnect: (reason) => expectTypeOf(reason).toEqualTypeOf<string>(),
    'realtime:subscribed': ({ renewed }) => expectTypeOf(renewed).toEqualTypeOf<boolean>(),
    // @ts-expect-error: there is no such event
    UPDATE_ordr: () => {}
  }
  const free: Handlers = { anything: (payload) => payload.at.all }
  expect([mapped, free]).toHaveLength(2)
})

// What the documentation of the official SDK shows, with nothing changed but the import.

const insforge = createClient({ baseUrl: 'http://127.0.0.1' })

test('the documented example compiles', () => {
  const example = async () => {
    insforge.realtime.on('error', (err) => console.error('RT Error:', err.code, err.message))
    insforge.realtime.on('disconnect', (reason) => console.error('Disconnected:', reason))
    await insforge.realtime.connect()
    const { ok } = await insforge.realtime.subscribe('order:123')
    if (ok) {
      insforge.realtime.on('UPDATE_order', (payload) => {
        console.error('Order updated:', payload.status)
        console.error('Message ID:', payload.meta.messageId)
      })
    }
    const response = await insforge.realtime.subscribe('order:123')
    if (!response.ok) console.error('Subscription failed:', response.error?.message)
    await insforge.realtime.publish('chat:room-1', 'new_message', {
      text: 'Hello!',
      sender: 'Alice'
    })
    const handler = (payload: unknown) => console.error(payload)
    insforge.realtime.on('my_event', handler)
    insforge.realtime.off('my_event', handler)
    insforge.realtime.unsubscribe('order:123')
    insforge.realtime.disconnect()
  }
  expect(example).toBeTypeOf('function')
})

// biome-ignore lint/complexity/noBannedTypes: it is what the documentation shows.
function useRealtime(channel: string, handlers: Record<string, Function>) {
  // biome-ignore lint/correctness/useExhaustiveDependencies: this too.
  useEffect(() => {
    let mounted = true

    async function setup() {
      await insforge.realtime.connect()
      const { ok } = await insforge.realtime.subscribe(channel)
      if (!ok || !mounted) return

      Object.entries(handlers).forEach(([event, handler]) => {
        // biome-ignore lint/suspicious/noExplicitAny: and this.
        insforge.realtime.on(event, handler as any)
      })
    }

    setup()

    return () => {
      mounted = false
      Object.entries(handlers).forEach(([event, handler]) => {
        // biome-ignore lint/suspicious/noExplicitAny: and this.
        insforge.realtime.off(event, handler as any)
      })
      insforge.realtime.unsubscribe(channel)
    }
  }, [channel])

  const publish = useCallback(
    (event: string, payload: object) => insforge.realtime.publish(channel, event, payload),
    [channel]
  )

  return { publish }
}

test("the documentation's own hook compiles", () => {
  expect(useRealtime).toBeTypeOf('function')
})
