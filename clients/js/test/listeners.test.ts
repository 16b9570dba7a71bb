import { expect, test, vi } from 'vitest'
import { Listeners } from '../src/listeners'

test('a function that listens twice is called once, and removed by itself alone', () => {
  const listeners = new Listeners()
  const [one, other] = [vi.fn(), vi.fn()]
  listeners.add('said', one)
  listeners.add('said', one)
  listeners.add('said', other)
  listeners.notify('said', 1)
  listeners.remove('said', one)
  listeners.notify('said', 2)
  expect(one.mock.calls).toEqual([[1]])
  expect(other.mock.calls).toEqual([[1], [2]])
})

test('once is one call, may be taken back, and does not disturb the same function added by on', () => {
  const listeners = new Listeners()
  const [both, never] = [vi.fn(), vi.fn()]
  listeners.add('said', both)
  listeners.add('said', both, true)
  listeners.add('said', never, true)
  listeners.remove('said', never)
  listeners.notify('said', 1)
  listeners.notify('said', 2)
  expect(both.mock.calls).toEqual([[1], [1], [2]])
  expect(never).not.toHaveBeenCalled()
})

test('a listener that throws goes to the console and stops nobody', () => {
  const listeners = new Listeners()
  const complain = vi.spyOn(console, 'error').mockImplementation(() => {})
  const next = vi.fn()
  listeners.add('said', () => {
    throw new Error('mine')
  })
  listeners.add('said', next)
  listeners.notify('said', 1)
  expect(next).toHaveBeenCalledOnce()
  expect(complain).toHaveBeenCalledOnce()
  vi.restoreAllMocks()
})

test('who is removed during an event is not called any more, who is added is called from the next on', () => {
  const listeners = new Listeners()
  const [removed, added] = [vi.fn(), vi.fn()]
  listeners.add('said', () => {
    listeners.remove('said', removed)
    listeners.add('said', added)
  })
  listeners.add('said', removed)
  listeners.notify('said', 1)
  listeners.notify('said', 2)
  expect(removed).not.toHaveBeenCalled()
  expect(added.mock.calls).toEqual([[2]])
})
