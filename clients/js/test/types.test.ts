// What the compiler promises. `tsc` in `npm run check` is what makes these tests fail.

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
  realtime.on('presence:join', (it) => expectTypeOf(it).toEqualTypeOf<PresenceEvent>())
})

test('results are typed', () => {
  expectTypeOf(realtime.subscribe).returns.resolves.toEqualTypeOf<SubscribeResponse>()
  expectTypeOf(realtime.connectionState).toEqualTypeOf<ConnectionState>()
  expectTypeOf(realtime.socketId).toEqualTypeOf<string | undefined>()
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
    // @ts-expect-error: there is no such event
    UPDATE_ordr: () => {}
  }
  const free: Handlers = { anything: (payload) => payload.at.all }
  expect([mapped, free]).toHaveLength(2)
})
