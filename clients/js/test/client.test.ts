import { expect, test } from 'vitest'
import * as index from '../src'
import * as react from '../src/react'

const baseUrl = 'http://127.0.0.1:7130'

test('the public names are these', () => {
  expect(Object.keys(index)).toEqual(['createClient'])
  expect(Object.keys(react).sort()).toEqual([
    'RealtimeProvider',
    'usePresence',
    'useRealtime',
    'useRealtimeClient'
  ])
})

test('realtime has the members that are promised, and no other', () => {
  const { realtime } = index.createClient({ baseUrl })
  const names = Object.getOwnPropertyNames(Object.getPrototypeOf(realtime))
  expect([...Object.keys(realtime), ...names].sort()).toEqual([
    'connect',
    'connectionState',
    'constructor',
    'disconnect',
    'getPresenceState',
    'getSubscribedChannels',
    'isConnected',
    'off',
    'on',
    'once',
    'publish',
    'setAccessToken',
    'socketId',
    'subscribe',
    'unsubscribe'
  ])
})

test('a client is not connected until it is told to', async () => {
  const { realtime } = index.createClient({ baseUrl })
  expect(realtime.isConnected).toBe(false)
  expect(realtime.connectionState).toBe('disconnected')
  expect(realtime.socketId).toBeUndefined()
  expect(realtime.getSubscribedChannels()).toEqual([])
  expect(realtime.getPresenceState('a')).toEqual([])
  await expect(realtime.publish('a', 'b', {})).rejects.toThrow('connect()')
  realtime.unsubscribe('a')
  realtime.disconnect()
})

test.each([undefined, '', 'nonsense', '/relative', 'ftp://127.0.0.1'])(
  '%o is no address',
  (wrong) => {
    expect(() => index.createClient({ baseUrl: wrong as string })).toThrow(TypeError)
  }
)

test('on and once return what takes the listener away', async () => {
  const { realtime } = index.createClient({ baseUrl: 'http://127.0.0.1:1' })
  const heard: string[] = []
  const stop = realtime.on('connect_error', () => heard.push('first'))
  realtime.once('connect_error', () => heard.push('once'))
  realtime.once('connect_error', () => heard.push('never'))()
  await expect(realtime.connect()).rejects.toThrow()
  stop()
  await expect(realtime.connect()).rejects.toThrow()
  expect(heard).toEqual(['first', 'once'])
})

test('a function that throws is a failed handshake, never one without a token', async () => {
  const { realtime } = index.createClient({
    baseUrl: 'http://127.0.0.1:1',
    anonKey: 'anon_key',
    accessToken: () => Promise.reject(new Error('no session'))
  })
  await expect(realtime.connect()).rejects.toThrow('no session')
  expect(realtime.connectionState).toBe('disconnected')
})
