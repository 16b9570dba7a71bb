// The table of reconnection.ts. The cases are in clients/reconnection-cases.json: the Python SDK's `step` obeys them too.

import { describe, expect, test } from 'vitest'
import table from '../../reconnection-cases.json'
import { type Action, IDLE, type LinkEvent, type LinkState, step } from '../src/reconnection'

const cases = table.cases.map(({ state, event, next, action }) => ({
  state: { ...IDLE, ...state } as LinkState,
  event: event as LinkEvent,
  next: { ...IDLE, ...next } as LinkState,
  action: action as Action
}))

describe('every row of the table', () => {
  test.each(cases)('$state, $event', ({ state, event, next, action }) => {
    expect(step(state, event)).toEqual([next, action])
  })

  test('is every event in every phase', () => {
    const distinct = (of: string[]) => new Set(of).size
    const phases = distinct(cases.map(({ state }) => state.phase))
    const events = distinct(cases.map(({ event }) => event.type))
    expect([phases, events]).toEqual([4, 11])
    expect(distinct(cases.map(({ state, event }) => `${state.phase} ${event.type}`))).toBe(44)
  })
})

test.each(table.runs)('$name', ({ state: start, events, actions }) => {
  let state = { ...IDLE, ...start } as LinkState
  const done = events.map((event) => {
    const [next, action] = step(state, event as LinkEvent)
    state = next
    return action?.do === 'wait' ? `wait ${action.failures}` : (action?.do ?? null)
  })
  expect(done).toEqual(actions)
})
