import { describe, expect, test } from 'vitest'
import { IDLE, type LinkEvent, type LinkState, step } from '../src/reconnection'

const at = (phase: LinkState['phase'], more: Partial<LinkState> = {}): LinkState => ({
  ...IDLE,
  phase,
  ...more
})
const lasting = { lasting: true }
const expired = { lasting: true, expired: true }
const failed: LinkEvent = { type: 'failed', later: false }
const later: LinkEvent = { type: 'failed', later: true }
const lost = (held: boolean): LinkEvent => ({ type: 'lost', held })
const connect: LinkEvent = { type: 'connect', lasting: false }

describe('every row of the table', () => {
  test.each<[LinkState, LinkEvent, LinkState['phase'], string | null]>([
    [at('idle'), connect, 'handshake', 'open'],
    [at('handshake'), { type: 'accepted' }, 'online', null],
    [at('handshake'), later, 'pause', 'wait'],
    [at('handshake', lasting), later, 'pause', 'wait'],
    [at('handshake'), failed, 'idle', 'stop'],
    [at('handshake', lasting), failed, 'pause', 'wait'],
    [at('handshake'), { type: 'token' }, 'handshake', 'open'],
    [at('online', lasting), lost(true), 'pause', 'wait'],
    [at('online', lasting), lost(false), 'pause', 'wait'],
    [at('online', expired), lost(true), 'handshake', 'open'],
    [at('online', expired), lost(false), 'pause', 'wait'],
    [at('online', lasting), { type: 'token' }, 'handshake', 'open'],
    [at('online', lasting), { type: 'ended' }, 'idle', 'stop'],
    [at('pause', lasting), { type: 'due' }, 'handshake', 'open'],
    [at('pause', lasting), { type: 'wake' }, 'handshake', 'open'],
    [at('pause', lasting), { type: 'token' }, 'handshake', 'open'],
    [at('handshake'), { type: 'giveUp' }, 'idle', 'stop'],
    [at('pause'), { type: 'giveUp' }, 'idle', 'stop'],
    [at('handshake', lasting), { type: 'giveUp' }, 'handshake', null],
    [at('pause', lasting), { type: 'giveUp' }, 'pause', null]
  ])('%o, %o', (state, event, phase, action) => {
    const [next, todo] = step(state, event)
    expect([next.phase, todo?.do ?? null]).toEqual([phase, action])
  })

  test.each(['idle', 'handshake', 'online', 'pause'] as const)('%s, disconnect', (phase) => {
    expect(step(at(phase, { ...expired, failures: 7 }), { type: 'disconnect' })).toEqual([
      IDLE,
      { do: 'stop' }
    ])
  })

  test('what the table does not name changes nothing', () => {
    const nothing: [LinkState['phase'], LinkEvent[]][] = [
      [
        'idle',
        [{ type: 'token' }, { type: 'wake' }, { type: 'due' }, { type: 'giveUp' }, lost(true)]
      ],
      ['pause', [{ type: 'ended' }]],
      ['online', [connect, { type: 'wake' }, { type: 'giveUp' }, failed]],
      ['handshake', [connect, { type: 'wake' }, { type: 'due' }]],
      ['pause', [connect, { type: 'accepted' }]]
    ]
    for (const [phase, events] of nothing) {
      for (const event of events) expect(step(at(phase), event)).toEqual([at(phase), null])
    }
  })
})

test('failures are counted, so that each wait is longer, until a connection holds', () => {
  const waits: number[] = []
  let state = at('handshake', lasting)
  const next = (event: LinkEvent) => {
    const [after, action] = step(state, event)
    if (action?.do === 'wait') waits.push(action.failures)
    state = after
  }
  for (const event of [failed, { type: 'due' }, later, { type: 'due' }] as const) {
    next(event)
  }
  for (const event of [{ type: 'accepted' }, lost(false), { type: 'due' }] as const) next(event)
  for (const event of [{ type: 'accepted' }, lost(true)] as const) next(event)
  expect(waits).toEqual([0, 1, 2, 0])
})

test('a link lasts once it has been accepted, or when a component asks for it', () => {
  expect(step(at('handshake'), { type: 'accepted' })[0].lasting).toBe(true)
  expect(step(at('handshake'), { type: 'connect', lasting: true })[0].lasting).toBe(true)
  expect(step(at('handshake', lasting), connect)[0].lasting).toBe(true)
})
