import { describe, expect, it } from 'vitest'
import { unsayable } from '../src/json'

const cycle: Record<string, unknown> = {}
cycle.self = cycle

describe('unsayable', () => {
  it.each<[string, object, string]>([
    ['NaN', { payload: { n: Number.NaN } }, 'payload.n: NaN'],
    [
      'an infinity',
      { payload: { a: [1, { b: Number.NEGATIVE_INFINITY }] } },
      'payload.a.1.b: -Infinity'
    ],
    [
      'a number in a list after others',
      { payload: { a: { b: 1 }, c: [{}, [Number.NaN]] } },
      'payload.c.1.0: NaN'
    ],
    ['a boxed number', { payload: { n: Object(Number.NaN) } }, 'payload.n: NaN'],
    ['what toJSON makes', { payload: { n: { toJSON: () => Number.NaN } } }, 'payload.n: NaN'],
    ['a BigInt', { payload: { n: 1n } }, 'payload.n: a BigInt'],
    ['a high half', { payload: { text: 'a\ud83d' } }, 'payload.text: half a surrogate pair'],
    ['a low half', { payload: { text: ['\ude00a'] } }, 'payload.text.0: half a surrogate pair'],
    ['two halves in the wrong order', { payload: { text: '\ude00\ud83d' } }, 'payload.text: half'],
    [
      'half a key',
      { payload: { 'a\ud83d': 1 } },
      'payload.a\ufffd: a key with half a surrogate pair'
    ],
    [
      'half an event',
      { channel: 'a', event: '\ud800', payload: {} },
      'event: half a surrogate pair'
    ],
    ['a cycle', { payload: cycle }, 'payload: cannot be represented in JSON']
  ])('tells of %s, and where it is', (_, data, fault) => {
    expect(unsayable(data)).toContain(fault)
  })

  it('says nothing of what JSON can say', () => {
    const shared = { a: 1 }
    const date = new Date(0)
    const payload = {
      ...{
        text: '😀 é \u2028 \0',
        none: null,
        no: undefined,
        call: () => 1,
        date,
        list: [shared, shared]
      },
      ...{ big: 2 ** 60, small: 5e-324, minus: -0, NaN: 'NaN', '😀': '', ['__proto__']: { a: 1 } }
    }
    expect(unsayable({ channel: '*', event: '__proto__', payload })).toBeNull()
  })
})
