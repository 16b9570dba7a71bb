// @vitest-environment happy-dom

import { act, StrictMode, useEffect, useState } from 'react'
import { createRoot, type Root } from 'react-dom/client'
import { renderToString } from 'react-dom/server'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { CHANNELS } from '../src/channels'
import { createClient, type RealtimeClient } from '../src/index'
import { RealtimeProvider, type UseRealtime, usePresence, useRealtime } from '../src/react'
import { FakeWire } from './fake-wire'

let wire: FakeWire
let client: RealtimeClient
let root: Root
let page: HTMLElement
const publish = vi.fn()

beforeEach(() => {
  vi.stubGlobal('IS_REACT_ACT_ENVIRONMENT', true)
  wire = new FakeWire()
  client = Object.defineProperty({ realtime: { publish } }, CHANNELS, {
    value: wire.channels
  }) as unknown as RealtimeClient
  page = document.createElement('main')
  root = createRoot(page)
})
afterEach(() => act(() => root.unmount()))

const show = (children: React.ReactNode) =>
  act(async () => root.render(<RealtimeProvider client={client}>{children}</RealtimeProvider>))
const server = (happens: () => void) => act(async () => happens())

function Order({ id }: { id: string }) {
  const [status, setStatus] = useState('unknown')
  const { status: how } = useRealtime(`order:${id}`, {
    UPDATE_order: (payload) => setStatus(payload.status)
  })
  return <p>{`${id} ${how} ${status}`}</p>
}

test('a message changes the component that listens to its channel, and no other', async () => {
  await show([<Order key="1" id="1" />, <Order key="2" id="2" />])
  await server(() => {
    wire.open()
    wire.yes()
    wire.yes()
  })
  await server(() => wire.say('order:1', 'UPDATE_order', { status: 'paid' }))
  expect(page.textContent).toBe('1 subscribed paid2 subscribed unknown')
})

test('two components on one channel share one subscription, and the last one out leaves', async () => {
  wire.open()
  await show([<Order key="a" id="1" />, <Order key="b" id="1" />])
  await server(() => wire.yes())
  await server(() => wire.say('order:1', 'UPDATE_order', { status: 'paid' }))
  expect(page.textContent).toBe('1 subscribed paid1 subscribed paid')
  await show([<Order key="a" id="1" />])
  expect(wire.sent).toEqual([['subscribe', 'order:1']])
  await show([])
  expect(wire.sent).toEqual([
    ['subscribe', 'order:1'],
    ['unsubscribe', 'order:1']
  ])
})

test('handlers may be others at every render: the newest is called, and nothing is subscribed anew', async () => {
  const heard: string[] = []
  const Any = ({ name, event }: { name: string; event: string }) => {
    useRealtime('a', { [event]: () => heard.push(name) })
    return null
  }
  wire.open()
  await show(<Any name="first" event="said" />)
  await server(() => wire.yes())
  await server(() => wire.say('a', 'said'))
  await show(<Any name="second" event="said" />)
  await server(() => wire.say('a', 'said'))
  await show(<Any name="third" event="shouted" />)
  await server(() => wire.say('a', 'said'))
  await server(() => wire.say('a', 'shouted'))
  expect(heard).toEqual(['first', 'second', 'third'])
  expect(wire.sent).toEqual([['subscribe', 'a']])
})

test("StrictMode's double mount subscribes once, and hears each message once", async () => {
  const heard = vi.fn()
  const Any = () => {
    useRealtime('a', { said: heard })
    return null
  }
  wire.open()
  await show(
    <StrictMode>
      <Any />
    </StrictMode>
  )
  await server(() => wire.yes())
  await server(() => wire.say('a', 'said'))
  expect(heard).toHaveBeenCalledOnce()
  expect(wire.sent).toEqual([['subscribe', 'a']])
  await show(null)
  expect(wire.sent.at(-1)).toEqual(['unsubscribe', 'a'])
})

test('a channel that changes moves the subscription', async () => {
  wire.open()
  await show(<Order id="1" />)
  await server(() => wire.yes())
  await show(<Order id="2" />)
  expect(page.textContent).toBe('2 connecting unknown')
  expect(wire.sent.slice(1).sort()).toEqual([
    ['subscribe', 'order:2'],
    ['unsubscribe', 'order:1']
  ])
  await server(() => wire.yes())
  expect(wire.say('order:1', 'UPDATE_order', { status: 'late' })).toBe(false)
  await server(() => wire.say('order:2', 'UPDATE_order', { status: 'paid' }))
  expect(page.textContent).toBe('2 subscribed paid')
})

test('unmounting while it subscribes leaves nothing', async () => {
  await show(<Order id="1" />)
  await show(null)
  await server(() => wire.open())
  expect(wire.sent).toEqual([])
  await show(<Order id="1" />)
  await show(null)
  await server(() => wire.yes())
  expect(wire.channels.confirmed()).toEqual([])
  expect(wire.sent).toEqual([
    ['subscribe', 'order:1'],
    ['unsubscribe', 'order:1']
  ])
})

test('a refusal is shown, with its reason', async () => {
  let seen: UseRealtime | undefined
  const Any = () => {
    seen = useRealtime('a')
    return null
  }
  wire.open()
  await show(<Any />)
  await server(() => wire.no('UNAUTHORIZED'))
  expect(seen).toMatchObject({ status: 'error', error: { channel: 'a', code: 'UNAUTHORIZED' } })
})

test('retry asks again, is the same function until the channel changes, and without one does nothing', async () => {
  const seen = new Set<UseRealtime['retry']>()
  const Any = ({ channel }: { channel: string | null }) => {
    const { status, error, retry } = useRealtime(channel)
    seen.add(retry)
    return (
      <button type="button" onClick={retry}>
        {status} {error?.code}
      </button>
    )
  }
  const click = () => server(() => page.querySelector('button')?.click())
  wire.open()
  await show(<Any channel="a" />)
  await server(() => wire.no('UNAUTHORIZED'))
  expect(page.textContent).toBe('error UNAUTHORIZED')
  await click()
  expect(page.textContent).toBe('connecting ')
  await server(() => wire.yes())
  expect(page.textContent).toBe('subscribed ')
  expect(seen.size).toBe(1)
  await server(() => wire.sendAway())
  expect(page.textContent).toBe('disconnected DISCONNECTED')
  await click()
  expect(wire.connects).toEqual([true])
  await show(<Any channel={null} />)
  await click()
  expect([seen.size, wire.connects.length]).toEqual([2, 1])
})

test('an effect reads the state at each confirmation, also in a component that comes later', async () => {
  const read = vi.fn()
  const Any = ({ name }: { name: string }) => {
    const { confirmations } = useRealtime('a')
    useEffect(() => {
      if (confirmations > 0) read(name, confirmations)
    }, [name, confirmations])
    return null
  }
  await show([<Any key="1" name="first" />])
  await server(() => wire.open())
  expect(read).not.toHaveBeenCalled()
  await server(() => wire.yes())
  await show([<Any key="1" name="first" />, <Any key="2" name="later" />])
  await server(() => {
    wire.lose()
    wire.open()
  })
  expect(read.mock.calls).toEqual([
    ['first', 1],
    ['later', 1]
  ])
  await server(() => wire.yes())
  expect(read.mock.calls.slice(2).sort()).toEqual([
    ['first', 2],
    ['later', 2]
  ])
})

test('a handler hears each confirmation, once, before any message', async () => {
  const heard: unknown[] = []
  const Any = () => {
    useRealtime('a', {
      'realtime:subscribed': ({ renewed }) => heard.push(renewed),
      said: () => heard.push('said')
    })
    return null
  }
  wire.open()
  await show([<Any key="1" />])
  await server(() => {
    wire.yes()
    wire.say('a', 'said')
    wire.lose()
    wire.open()
    wire.yes()
    wire.say('a', 'said')
  })
  expect(heard).toEqual([false, 'said', true, 'said'])
  await show([<Any key="1" />, <Any key="2" />])
  expect(heard.slice(4)).toEqual([false])
})

test('publish goes to the channel, and is the same function until that changes', async () => {
  const seen = new Set<UseRealtime['publish']>()
  const Any = ({ channel }: { channel: string | null }) => {
    seen.add(useRealtime(channel).publish)
    return null
  }
  await show(<Any channel="a" />)
  await show(<Any channel="a" />)
  expect(seen.size).toBe(1)
  await show(<Any channel={null} />)
  const [first, without] = [...seen]
  await first?.('said', { text: 'hello' }, { ack: true })
  expect(publish).toHaveBeenCalledWith('a', 'said', { text: 'hello' }, { ack: true })
  await expect(without?.('said', {})).rejects.toThrow('no channel')
})

test('no channel yet is no subscription', async () => {
  const Any = () => <p>{useRealtime(null).status}</p>
  await show(<Any />)
  expect(page.textContent).toBe('disconnected')
  expect(wire.connects).toEqual([])
})

test('who is there is shown as they come and go', async () => {
  const Who = () => (
    <p>
      {usePresence('a')
        .map(({ presenceId }) => presenceId)
        .join()}
    </p>
  )
  wire.open()
  await show(<Who />)
  await server(() => wire.yes('me'))
  const member = { type: 'user', presenceId: 'you', joinedAt: '' }
  await server(() => wire.say('a', 'presence:join', { member }))
  expect(page.textContent).toBe('me,you')
  await server(() => wire.say('a', 'presence:leave', { member }))
  expect(page.textContent).toBe('me')
})

test('on a server it renders without connecting', () => {
  const html = renderToString(
    <RealtimeProvider client={createClient({ baseUrl: 'http://127.0.0.1:1' })}>
      <Order id="1" />
    </RealtimeProvider>
  )
  expect(html).toContain('1 connecting unknown')
})

test('a hook without a provider, and a client of another package, are told apart', () => {
  const hush = vi.spyOn(console, 'error').mockImplementation(() => {})
  expect(() => renderToString(<Order id="1" />)).toThrow('RealtimeProvider')
  const foreign = { realtime: {} } as RealtimeClient
  const page = (
    <RealtimeProvider client={foreign}>
      <Order id="1" />
    </RealtimeProvider>
  )
  expect(() => renderToString(page)).toThrow('@insforge-realtime/client')
  hush.mockRestore()
})
