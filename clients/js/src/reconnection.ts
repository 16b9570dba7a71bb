// When to connect, when to wait and when to stop: the decisions, without a socket, a clock or a promise.
// `step` is a pure function that obeys this table, and the twin of the one in the Python SDK: both pass
// clients/reconnection-cases.json. link.ts carries out what it decides.
//
//   phase      event                          → phase      action
//   ─────────  ─────────────────────────────  ───────────  ──────────────────────────────────────────────────────────
//   idle       connect                          handshake  get a token, open a socket
//   handshake  accepted                         online     renew every subscription; `connect`; connect() resolves
//   handshake  failed, not lasting              idle       `connect_error`; connect() rejects
//   handshake  failed, lasting                  pause      `connect_error`; back off
//   handshake  failed: later                    pause      the same, lasting or not
//   handshake  token                            handshake  begin again, with the new token
//   online     lost                             pause      `disconnect`; back off
//   online     lost after TOKEN_EXPIRED         handshake  `disconnect`; at once, unless that connection had just begun
//   online     token                            handshake  `disconnect`; at once
//   online     ended                            idle       `disconnect`: the server has sent this client away for good
//   pause      due, wake, token                 handshake  the back-off is over, or there is a reason not to sit it out
//   handshake  giveUp, not lasting              idle       connect() rejects: its time is over
//   pause      giveUp, not lasting              idle       the same
//   any        disconnect                       idle       `disconnect` if it was online; connect() rejects; all is forgotten
//   else                                        unchanged
//
// *Lasting* is a link that has been accepted once, or that a mounted component waits for: it goes on without end, whatever
// the failure. UNAUTHORIZED is not an exception: a function may have a better token next time, a server that cannot tell
// good from bad for a while may have its keys back, and setAccessToken is always possible. A link that is not lasting is the
// first connect() of a program, which wants to hear that its address or its token is wrong.
// A failure is *later* when the server cannot judge, or not now: UNAVAILABLE, RATE_LIMITED. It is never taken for a no.
// A connection has *held* when it lasted a while. Then the count of failures begins anew; a server that accepts and drops at
// once does not see its clients come back any faster.

/** Where the link stands. */
export type Phase = 'idle' | 'handshake' | 'online' | 'pause'

/** All that the decisions depend on. */
export interface LinkState {
  readonly phase: Phase
  /** Handshakes that failed, and connections that did not hold, in a row. */
  readonly failures: number
  readonly lasting: boolean
  /** The server has announced that the token has ended. */
  readonly expired: boolean
}

/** What happens to a link. */
export type LinkEvent =
  | { type: 'connect'; lasting: boolean }
  | { type: 'accepted' }
  | { type: 'failed'; later: boolean }
  | { type: 'lost' | 'token'; held: boolean }
  | { type: 'expired' | 'ended' | 'due' | 'wake' | 'giveUp' | 'disconnect' }

/** What to do: open a socket, wait, or nothing more. `null`: carry on. */
export type Action = { do: 'open' } | { do: 'wait'; failures: number } | { do: 'stop' } | null

/** A decision. */
export type Step = readonly [LinkState, Action]

/** Before anything has happened. */
export const IDLE: LinkState = { phase: 'idle', failures: 0, lasting: false, expired: false }

/** Decide by the table at the top of this file. */
export function step(state: LinkState, event: LinkEvent): Step {
  if (event.type === 'disconnect') return stop()
  if (event.type === 'connect') return connect(state, event.lasting)
  switch (state.phase) {
    case 'handshake':
      return inHandshake(state, event)
    case 'online':
      return online(state, event)
    case 'pause':
      return inPause(state, event)
    default:
      return unchanged(state)
  }
}

function connect(state: LinkState, lasting: boolean): Step {
  const next = { ...state, lasting: state.lasting || lasting }
  return state.phase === 'idle' ? open(next) : unchanged(next)
}

function inHandshake(state: LinkState, event: LinkEvent): Step {
  if (event.type === 'accepted') {
    return [{ ...state, phase: 'online', lasting: true, expired: false }, null]
  }
  if (event.type === 'failed') return event.later || state.lasting ? pause(state) : stop()
  if (event.type === 'token') return open(state)
  return event.type === 'giveUp' ? giveUp(state) : unchanged(state)
}

function online(state: LinkState, event: LinkEvent): Step {
  if (event.type === 'expired') return unchanged({ ...state, expired: true })
  if (event.type === 'ended') return stop()
  if (event.type !== 'lost' && event.type !== 'token') return unchanged(state)
  const next = { ...state, failures: event.held ? 0 : state.failures }
  const atOnce = event.type === 'token' || (state.expired && event.held)
  return atOnce ? open(next) : pause(next)
}

function inPause(state: LinkState, event: LinkEvent): Step {
  if (event.type === 'due' || event.type === 'wake' || event.type === 'token') return open(state)
  return event.type === 'giveUp' ? giveUp(state) : unchanged(state)
}

const giveUp = (state: LinkState): Step => (state.lasting ? unchanged(state) : stop())
const unchanged = (state: LinkState): Step => [state, null]
const stop = (): Step => [IDLE, { do: 'stop' }]
const open = (state: LinkState): Step => [
  { ...state, phase: 'handshake', expired: false },
  { do: 'open' }
]
const pause = (state: LinkState): Step => [
  { ...state, phase: 'pause', failures: state.failures + 1 },
  { do: 'wait', failures: state.failures }
]
