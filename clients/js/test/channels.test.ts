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

describe('a confirmation is told', () => {
  const told = vi.fn()
  beforeEach(() => {
    told.mockReset()
    wire.open()
  })

  test('the first time and at each renewal, before any message, and not for what is not renewed', () => {
    const heard: string[] = []
    wire.channels.hold('a', { changed: () => {}, event: (name) => heard.push(name) })
    wire.yes()
    wire.say('a', 'said')
    wire.lose()
    wire.open()
    expect(wire.confirmed).toEqual([{ channel: 'a', renewed: false }])
    wire.no('UNAVAILABLE')
    vi.advanceTimersByTime(1000)
    wire.yes()
    wire.say('a', 'said')
    wire.lose()
    wire.open()
    wire.no('UNAUTHORIZED')
    expect(wire.confirmed).toEqual([
      { channel: 'a', renewed: false },
      { channel: 'a', renewed: true }
    ])
    expect(heard).toEqual(['realtime:subscribed', 'said', 'realtime:subscribed', 'said', 'error'])
  })

  test('to whom subscribe was given, once each time, until unsubscribe', () => {
    void wire.channels.subscribe('a', told)
    void wire.channels.subscribe('a', told)
    expect(told).not.toHaveBeenCalled()
    wire.yes()
    wire.lose()
    wire.open()
    wire.yes()
    expect(told.mock.calls).toEqual([
      [{ channel: 'a', renewed: false }],
      [{ channel: 'a', renewed: true }]
    ])
    wire.channels.unsubscribe('a')
    void wire.channels.subscribe('a')
    wire.yes()
    expect(told).toHaveBeenCalledTimes(2)
  })

  test('at once to whom comes to a channel that is confirmed already', () => {
    const holder = { changed: () => {}, event: vi.fn() }
    void wire.channels.subscribe('a')
    wire.yes()
    void wire.channels.subscribe('a', told)
    void wire.channels.subscribe('a', told)
    wire.channels.hold('a', holder)
    expect(told.mock.calls).toEqual([[{ channel: 'a', renewed: false }]])
    expect(holder.event.mock.calls).toEqual([['realtime:subscribed', told.mock.calls[0]?.[0]]])
    expect(wire.confirmed).toHaveLength(1)
  })

  test.each(['refused', 'too late', 'disconnected'])('to nobody who was %s', (how) => {
    void wire.channels.subscribe('a', told)
    if (how === 'refused') wire.no('UNAUTHORIZED')
    else if (how === 'disconnected') wire.channels.clear()
    else vi.advanceTimersByTime(10_000)
    wire.lose()
    wire.open()
    void wire.channels.subscribe('a')
    for (let question = 0; question < 3; question++) wire.yes()
    expect(wire.channels.confirmed()).toEqual(['a'])
    expect(told).not.toHaveBeenCalled()
  })

  test('to nobody behind one that leaves the channel, and one that throws disturbs nobody', () => {
    const hush = vi.spyOn(console, 'error').mockImplementation(() => {})
    void wire.channels.subscribe('a', () => {
      throw new Error('in a listener')
    })
    void wire.channels.subscribe('a', () => wire.channels.unsubscribe('a'))
    void wire.channels.subscribe('a', told)
    wire.yes()
    expect(told).not.toHaveBeenCalled()
    expect(wire.confirmed).toEqual([])
    expect(hush).toHaveBeenCalledOnce()
    hush.mockRestore()
  })

  test('once, by the first answer, where a slow server is asked again before it', () => {
    void wire.channels.subscribe('a', told)
    wire.yes()
    wire.lose()
    wire.open()
    vi.advanceTimersByTime(11_000)
    expect(asks()).toBe(3)
    wire.yes() // to the first of the two questions: messages come from now on
    expect(wire.say('a', 'said')).toBe(true)
    expect(told).toHaveBeenCalledTimes(2)
    wire.yes()
    expect(told).toHaveBeenCalledTimes(2)
  })
})

describe('a connection that is refused', () => {
  test.each(['UNAUTHORIZED', 'RATE_LIMITED', 'UNAVAILABLE', 'CONNECTION_FAILED'])(
    'with %s is answered so by subscribe',
    async (code) => {
      const answer = wire.channels.subscribe('a')
      wire.fail(failure(code, 'the reason'))
      expect(await answer).toEqual({
        ok: false,
        channel: 'a',
        error: { code, message: 'the reason' }
      })
    }
  )

  test('while it is made again is the reason of who has waited too long', async () => {
    wire.open()
    void wire.channels.subscribe('a')
    wire.yes()
    const waiting = wire.channels.subscribe('b')
    wire.lose()
    wire.lastError = failure('UNAUTHORIZED', 'the reason')
    await vi.advanceTimersByTimeAsync(10_000)
    expect(await waiting).toMatchObject({ error: { code: 'UNAUTHORIZED', message: 'the reason' } })
  })
})

describe('a client that the server has sent away', () => {
  test('answers who waits, asks for its channels when it is connected again, and only then', async () => {
    wire.open()
    void wire.channels.subscribe('a')
    wire.yes()
    const waiting = wire.channels.subscribe('b')
    wire.sendAway()
    expect(await waiting).toMatchObject({ ok: false, error: { code: 'DISCONNECTED' } })
    expect(wire.connects).toEqual([])
    wire.open()
    expect(wire.sent.slice(2)).toEqual([['subscribe', 'a']])
  })

  test('is shown to components, and another one does not connect it; retry does', () => {
    const holder = () => ({ changed: vi.fn(), event: vi.fn() })
    wire.open()
    wire.channels.hold('a', holder())
    wire.yes()
    wire.sendAway()
    wire.channels.hold('b', holder())
    for (const name of ['a', 'b']) {
      expect(wire.channels.view(name)).toMatchObject({
        status: 'disconnected',
        error: { code: 'DISCONNECTED', message: 'sent away' }
      })
    }
    expect(wire.connects).toEqual([])
    wire.channels.retry('a')
    expect(wire.connects).toEqual([true])
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
    const heard = ({ event }: typeof one) => event.mock.calls.filter(([name]) => name === 'said')
    expect([heard(one).length, heard(two).length]).toEqual([0, 1])
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

  test('retry what was refused, and what waits, at once', () => {
    wire.open()
    wire.channels.hold('a', holder())
    wire.no('UNAUTHORIZED')
    wire.channels.retry('a')
    wire.channels.retry('a') // it is being asked
    expect(wire.channels.view('a')).toMatchObject({ status: 'connecting', error: null })
    expect(asks()).toBe(2)
    wire.no('UNAVAILABLE')
    wire.channels.retry('a')
    expect(asks()).toBe(3)
    wire.yes()
    wire.channels.retry('a')
    wire.channels.retry('not held')
    expect(asks()).toBe(3)
    wire.lose()
    wire.wakes = 0
    wire.channels.retry('a')
    expect([wire.connects, wire.wakes]).toEqual([[true], 1])
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
