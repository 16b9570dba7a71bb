import { expect, test } from 'vitest'
import { serverAt } from '../src/address'

test.each([
  'http://127.0.0.1:7130',
  'https://example.com',
  ' HTTPS://Example.COM/realtime/ ',
  'http://[::1]:7130/a/b//?c#d',
  'http://user:secret@example.com:8080',
  'https://a-b.example./%20/x',
  'http://localhost?x',
  'http://localhost#x',
  'http://example.com:'
])('%o leads where URL says', (baseUrl) => {
  const { origin, pathname } = new URL(baseUrl)
  expect(serverAt(baseUrl)).toEqual({ origin, path: pathname.replace(/\/+$/, '') })
})

test.each([
  ...[undefined, null, 7, {}, '', 'nonsense', '/relative', 'ftp://127.0.0.1', 'ws://a', 'http://'],
  ...['http://a b', 'http://a:port', 'http://a:123456', 'http://[::1', 'http:///a', 'http://a\\b']
])('%o leads nowhere', (wrong) => {
  expect(() => serverAt(wrong as string)).toThrow(TypeError)
})
