// When to connect, when to wait and when to stop: the decisions, without a socket, a clock or a promise.
// `step` is a pure function that obeys this table; link.ts does what it says.
//
//   phase      event                          → phase      what is done
//   ─────────  ─────────────────────────────  ───────────  ──────────────────────────────────────────────────────────
//   idle       connect                          handshake  ask for a token, open a socket
//   handshake  accepted                         online     ask again for every subscription; `connect`; connect() resolves
//   handshake  failed, not lasting              idle       `connect_error`; connect() rejects
//   handshake  failed, lasting                  pause      `connect_error`; back-off
//   handshake  failed: later                    pause      the same, lasting or not
//   handshake  token                            handshake  begin again, with the new token
//   online     lost                             pause      `disconnect`; back-off
//   online     lost after TOKEN_EXPIRED         handshake  `disconnect`; at once, unless that connection had just begun
//   online     token                            handshake  `disconnect`; at once
//   online     ended                            idle       `disconnect`: the server has sent this client away for good
//   pause      due, wake, token                 handshake  the back-off is over, or the network is back
//   handshake  giveUp, not lasting              idle       connect() rejects: it took longer than its timeout
//   pause      giveUp, not lasting              idle       the same
//   any        disconnect                       idle       `disconnect` if it was online; connect() rejects; all is forgotten
//   else                                        unchanged
//
// *Lasting* is a link that has been accepted once, or that a mounted component waits for: it goes on without end, whatever
// the failure. UNAUTHORIZED is no exception: a function may have a better token next time, a server that cannot tell good
// from bad for a while may have its keys back, and setAccessToken is always possible. A link that is not lasting is the first
// connect() of a program, which wants to hear that the address or the token is wrong.
// A failure is *later* when the server could not say, or not now: UNAVAILABLE, RATE_LIMITED. It is never taken for a no.
// The count of failures begins anew when a connection has held for a while: a server that accepts and drops at once is not
// asked faster for it.

/** Where the link stands. */
export type Phase = 'idle' | 'handshake' | 'online' | 'pause'

/** All that the decisions depend on. */
export interface LinkState {
  readonly phase: Phase
  /** Handshakes that failed, and connections that did not hold, one after the other. */
  readonly failures: number
  readonly lasting: boolean
  /** The server has said that the token has ended. */
  readonly expired: boolean
}

/** What happens to a link. */
export type LinkEvent =
  | { type: 'connect'; lasting: boolean }
  | { type: 'accepted' }
  | { type: 'failed'; later: boolean }
  | { type: 'lost' | 'token'; held: boolean }
  | { type: 'expired' | 'ended' | 'due' | 'wake' | 'giveUp' | 'disconnect' }

/** What is to be done: open a socket, wait, or nothing more. `null`: what is being done is right. */
export type Action = { do: 'open' } | { do: 'wait'; failures: number } | { do: 'stop' } | null

/** A decision. */
export type Step = readonly [LinkState, Action]

/** Before anything has happened. */
export const IDLE: LinkState = { phase: 'idle', failures: 0, lasting: false, expired: false }

/** The table at the top of this file. */
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
