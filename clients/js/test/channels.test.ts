import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { failure } from '../src/errors'
import { FakeWire } from './fake-wire'

let wire: FakeWire
const ids = (channel: string) => wire.channels.members(channel).map(({ presenceId }) => presenceId)
const asks = () => wire.sent.filter(([verb]) => verb === 'subscribe').length

beforeEach(() => {
  vi.useFakeTimers()
  wire = new FakeWire()
})
afterEach(() => vi.useRealTimers())

test('a subscribe is sent in the same moment when there is a connection, so a publish may follow it', () => {
  wire.open()
  void wire.channels.subscribe('a')
  expect(wire.sent).toEqual([['subscribe', 'a']])
})

test('subscribes to one channel share one question and one answer', async () => {
  const [one, two] = [wire.channels.subscribe('a'), wire.channels.subscribe('a')]
  wire.open()
  wire.yes('me')
  expect(await one).toBe(await two)
  expect(wire.sent).toEqual([['subscribe', 'a']])
  expect(await wire.channels.subscribe('a')).toMatchObject({
    ok: true,
    presence: { members: [{ presenceId: 'me' }] }
  })
  expect(asks()).toBe(1)
})

describe('answers', () => {
  beforeEach(() => wire.open())

  test.each(['UNAVAILABLE', 'RATE_LIMITED', 'TOKEN_EXPIRED'])(
    '%s is no refusal: it is asked again',
    async (code) => {
      const answer = wire.channels.subscribe('a')
      wire.no(code)
      expect(wire.channels.confirmed()).toEqual([])
      await vi.advanceTimersByTimeAsync(1000)
      expect(asks()).toBe(2)
      wire.yes()
      expect((await answer).ok).toBe(true)
    }
  )

  test('without a yes in time the reason is told, and nothing is left', async () => {
    const answer = wire.channels.subscribe('a')
    wire.no('UNAVAILABLE')
    await vi.advanceTimersByTimeAsync(10_000)
    expect(await answer).toMatchObject({ ok: false, error: { code: 'UNAVAILABLE' } })
    expect(wire.sent.at(-1)).toEqual(['unsubscribe', 'a'])
    wire.yes() // too late
    expect(wire.channels.confirmed()).toEqual([])
    expect(vi.getTimerCount()).toBe(0)
  })

  test('no answer at all is a timeout', async () => {
    const answer = wire.channels.subscribe('a')
    await vi.advanceTimersByTimeAsync(10_000)
    expect(await answer).toMatchObject({ ok: false, error: { code: 'SUBSCRIBE_TIMEOUT' } })
    expect(wire.sent.at(-1)).toEqual(['unsubscribe', 'a'])
  })

  test.each([undefined, null, 7, {}, { ok: false }])('%o is an error', async (nonsense) => {
    const answer = wire.channels.subscribe('a')
    wire.answer(nonsense)
    expect(await answer).toMatchObject({
      ok: false,
      channel: 'a',
      error: { code: 'INTERNAL_ERROR' }
    })
  })

  test.each([{}, { presence: 7 }, { presence: { members: 7 } }])(
    'a yes with %o is a yes',
    async (more) => {
      const answer = wire.channels.subscribe('a')
      wire.answer({ ok: true, ...more })
      expect(await answer).toEqual({ ok: true, channel: 'a', presence: { members: [] } })
    }
  )
})

describe('after a reconnect', () => {
  beforeEach(() => {
    wire.open()
    void wire.channels.subscribe('a')
    wire.yes('me', 'you')
    wire.lose()
  })

  test('what was confirmed is asked again, and presence is what the new snapshot says', () => {
    expect(wire.channels.confirmed()).toEqual([])
    expect(ids('a')).toEqual(['me', 'you'])
    wire.open()
    wire.yes('me')
    expect(wire.channels.confirmed()).toEqual(['a'])
    expect(ids('a')).toEqual(['me'])
  })

  test('it is asked again for ever, while the answer is no no', async () => {
    wire.open()
    for (let round = 0; round < 20; round++) {
      wire.no('UNAVAILABLE')
      await vi.advanceTimersByTimeAsync(20_000)
    }
    expect(asks()).toBe(22)
    wire.yes()
    expect(wire.channels.confirmed()).toEqual(['a'])
    expect(wire.reported).toEqual([])
  })

  test('a refusal is reported, and dropped for good', () => {
    wire.open()
    wire.no('UNAUTHORIZED')
    expect(wire.reported).toEqual([{ channel: 'a', code: 'UNAUTHORIZED', message: 'UNAUTHORIZED' }])
    wire.lose()
    wire.open()
    expect(asks()).toBe(2)
    expect(ids('a')).toEqual([])
  })

  test('an answer of the old connection is not heard', () => {
    wire.open()
    wire.lose()
    wire.no('UNAUTHORIZED')
    wire.open()
    wire.yes()
    expect(wire.channels.confirmed()).toEqual(['a'])
  })

  test('a subscribe that does not get a yes in time does not take away what was there', async () => {
    const answer = wire.channels.subscribe('a')
    wire.fail(failure('CONNECTION_FAILED', 'nobody there'))
    expect(await answer).toMatchObject({ ok: false, error: { code: 'CONNECTION_FAILED' } })
    wire.open()
    wire.yes()
    expect(wire.channels.confirmed()).toEqual(['a'])
  })
})

describe('components that hold a channel', () => {
  const holder = () => ({ changed: vi.fn(), event: vi.fn() })

  test('share it with each other and with subscribe, and the last one out leaves', async () => {
    wire.open()
    const [one, two] = [holder(), holder()]
    const leaveOne = wire.channels.hold('a', one)
    const leaveTwo = wire.channels.hold('a', two)
    wire.yes()
    await wire.channels.subscribe('a')
    leaveOne()
    wire.channels.unsubscribe('a')
    await Promise.resolve()
    expect(wire.sent).toEqual([['subscribe', 'a']])
    wire.say('a', 'said')
    expect([one.event.mock.calls.length, two.event.mock.calls.length]).toEqual([0, 1])
    leaveTwo()
    await Promise.resolve()
    expect(wire.sent).toEqual([
      ['subscribe', 'a'],
      ['unsubscribe', 'a']
    ])
    expect(wire.say('a', 'said')).toBe(false)
  })

  test('wait for as long as it takes', () => {
    wire.channels.hold('a', holder())
    expect(wire.connects).toEqual([true])
    expect(wire.channels.view('a').status).toBe('connecting')
  })

  test('see each state, in a view that is the same until it changes', () => {
    const one = holder()
    wire.channels.hold('a', one)
    wire.open()
    wire.yes('me')
    const view = wire.channels.view('a')
    expect(view).toMatchObject({
      status: 'subscribed',
      error: null,
      members: [{ presenceId: 'me' }]
    })
    expect(wire.channels.view('a')).toBe(view)
    wire.lose()
    expect(wire.channels.view('a')).toMatchObject({ status: 'connecting', members: [{}] })
    wire.open()
    wire.no('UNAVAILABLE')
    expect(wire.channels.view('a')).toMatchObject({
      status: 'connecting',
      error: { code: 'UNAVAILABLE' }
    })
    wire.lose()
    wire.fail(Object.assign(new Error('bad token'), { data: { code: 'UNAUTHORIZED' } }))
    expect(wire.channels.view('a')).toMatchObject({
      status: 'error',
      error: { message: 'bad token' }
    })
  })

  test('keep a refused channel in view, and it is asked for again with another token', () => {
    wire.open()
    wire.channels.hold('a', holder())
    wire.no('UNAUTHORIZED')
    expect(wire.channels.view('a')).toMatchObject({
      status: 'error',
      error: { channel: 'a', code: 'UNAUTHORIZED' }
    })
    wire.lose()
    wire.open()
    expect(asks()).toBe(1)
    wire.channels.tokenChanged()
    wire.lose()
    wire.open()
    wire.yes()
    expect(wire.channels.view('a')).toMatchObject({ status: 'subscribed', error: null })
  })

  test('are there again after disconnect and connect; what the application subscribed to is not', async () => {
    wire.open()
    wire.channels.hold('a', holder())
    void wire.channels.subscribe('b')
    wire.yes()
    wire.yes()
    wire.channels.clear()
    wire.state = 'disconnected'
    wire.channels.refresh()
    expect(wire.channels.view('a')).toMatchObject({
      status: 'disconnected',
      error: null,
      members: []
    })
    wire.open()
    wire.yes()
    expect(wire.channels.confirmed()).toEqual(['a'])
  })
})
