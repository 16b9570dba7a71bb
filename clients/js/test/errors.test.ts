import { expect, test } from 'vitest'
import { asConnectError, failure } from '../src/errors'

test('the refusal of a server is passed on as it is', () => {
  const refusal = Object.assign(new Error('no'), { data: { code: 'UNAUTHORIZED' } })
  expect(asConnectError(refusal)).toBe(refusal)
})

test.each([
  [new Error('websocket error'), 'websocket error'],
  [Object.assign(new Error('no session'), { data: { status: 401 } }), 'no session'],
  ['transport close', 'transport close']
])('anything else is CONNECTION_FAILED, and is its cause: %o', (cause, message) => {
  expect(asConnectError(cause)).toMatchObject({
    message,
    cause,
    data: { code: 'CONNECTION_FAILED' }
  })
})

test('what this client says itself has a code too', () => {
  const error = failure('NOT_CONNECTED', 'Not connected')
  expect(error).toBeInstanceOf(Error)
  expect(error).toMatchObject({ message: 'Not connected', data: { code: 'NOT_CONNECTED' } })
})
