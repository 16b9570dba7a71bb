// What this client is subscribed to, wants to be, and who is there. Knows the wire's three verbs, but no socket.
//
//   state      event                                          → state
//   ─────────  ─────────────────────────────────────────────  ───────────────────────────────────────────────────────
//   wanted     a connection opens                               asking      `realtime:subscribe` is sent
//   asking     ok                                               confirmed   presence is replaced by the new snapshot; then
//                                                                           `realtime:subscribed`, before any message of it
//   asking     no answer in time                                asking      sent again after a back-off; the first answer counts
//   asking     UNAVAILABLE, RATE_LIMITED                        wanted      the same: that was not a refusal
//   asking     TOKEN_EXPIRED                                    wanted      the same: the server ends that connection
//   asking     any other refusal                                gone        answers whoever waits; else reported as `error`
//   asking,    the connection is lost                           wanted      sent again on the next one
//   confirmed
//   any        the server has sent this client away             wanted      the same, once the application connects again;
//                                                                           whoever waits is answered DISCONNECTED
//   any        nobody wants it any more                         gone        `realtime:unsubscribe` is sent
//
// A channel is wanted from subscribe() to unsubscribe(), and by every component that *holds* it. For components a refused
// channel stays known as `refused`, until another token, another holder or retry() is a reason to try again.
// subscribe() is answered within its timeout: a channel that has never been confirmed is given up then, and nothing of it
// is left behind.

import { type BackoffOptions, backoff } from './backoff'
import {
  applyPresence,
  asResponse,
  type Channel,
  type ChannelView,
  changed,
  channelOf,
  type Holder,
  isConfirmed,
  isWanted,
  newChannel,
  newWaiting,
  no,
  release,
  settle,
  type Waiting,
  yes
} from './channel'
import { unsayable } from './json'
import { guarded } from './listeners'
import type {
  ConnectError,
  ConnectionState,
  PresenceMember,
  RealtimeErrorDetail,
  RealtimeErrorPayload,
  SubscribedEvent,
  SubscribeResponse
} from './types'

/** Where the React hooks, a bundle of their own, find a client's channels. */
export const CHANNELS = Symbol.for('@insforge-realtime/client channels')

/** The event of a confirmed subscription, a name that applications cannot publish. */
export const SUBSCRIBED = 'realtime:subscribed'

/** What the channels need from the connection. */
export interface Wire {
  readonly online: boolean
  readonly state: ConnectionState
  readonly lastError: ConnectError | null
  connect(lasting: boolean): Promise<void>
  /** Cut a back-off short. */
  wake(): void
  emit(event: string, data: unknown, answered?: (answer: unknown) => void): void
}

interface Options {
  /** How long the server has for an answer, in milliseconds. */
  timeout: number
  backoff: BackoffOptions
  /** Takes the events: confirmations and, as `error`, the refusals that nobody waits for. */
  notify(name: string, data: SubscribedEvent | RealtimeErrorPayload): void
}

const AGAIN = new Set(['UNAVAILABLE', 'RATE_LIMITED', 'TOKEN_EXPIRED'])
const UNKNOWN: ChannelView = { status: 'connecting', error: null, confirmations: 0, members: [] }

/** The channels of one client. */
export class Channels {
  readonly #wire: Wire
  readonly #options: Options
  readonly #channels = new Map<string, Channel>()

  constructor(wire: Wire, options: Options) {
    this.#wire = wire
    this.#options = options
  }

  /** Return the names of those that the server has confirmed on the current connection. */
  confirmed(): string[] {
    return [...this.#channels.values()].filter(isConfirmed).map(({ name }) => name)
  }

  /** Whether a component holds a channel. */
  get held(): boolean {
    return [...this.#channels.values()].some(({ holders }) => holders.size > 0)
  }

  members(name: string): PresenceMember[] {
    return [...(this.#channels.get(name)?.members.values() ?? [])]
  }

  /** Want a channel. Calls made while one waits share its answer. */
  subscribe(name: string, told?: (event: SubscribedEvent) => void): Promise<SubscribeResponse> {
    const channel = this.#get(name)
    const isNew = told && !channel.told.has(told)
    channel.subscribed = true
    if (told) channel.told.add(told)
    if (isNew && isConfirmed(channel)) guarded(SUBSCRIBED, told, { channel: name, renewed: false })
    if (isConfirmed(channel)) return Promise.resolve(yes(channel))
    return (channel.waiting ?? this.#request(channel)).answer
  }

  /** Stop wanting it; components that hold it keep it. */
  unsubscribe(name: string): void {
    const channel = this.#channels.get(name)
    if (!channel) return
    release(channel)
    settle(channel, no(name, 'SUBSCRIPTION_CANCELLED', 'Subscription cancelled'))
    this.#leaveUnlessWanted(channel)
  }

  /** Want a channel while a component is mounted. Return a function that lets go of it. */
  hold(name: string, holder: Holder): () => void {
    const channel = this.#get(name)
    channel.holders.add(holder)
    if (isConfirmed(channel)) tellHolder(holder, SUBSCRIBED, { channel: name, renewed: false })
    if (channel.state === 'refused') this.#askAnew(channel)
    if (!this.#sentAway) this.#askOrConnect(channel)
    return () => {
      channel.holders.delete(holder)
      // A component that is remounted at once, or another on the same channel, finds it still there.
      queueMicrotask(() => this.#leaveUnlessWanted(channel))
    }
  }

  /** Try again at once: what was refused, what waits, and a connection that has ended. */
  retry(name: string): void {
    const channel = this.#channels.get(name)
    if (!channel) return
    if (channel.state === 'refused' || channel.state === 'wanted') this.#askAnew(channel)
    this.#askOrConnect(channel)
    this.#wire.wake()
  }

  /** Return what a component sees now. */
  view(name: string): ChannelView {
    const channel = this.#channels.get(name)
    if (!channel) return UNKNOWN
    const { confirmations, members } = channel
    channel.view ??= { ...this.#standing(channel), confirmations, members: [...members.values()] }
    return channel.view
  }

  /** Request all that is wanted: a connection has opened. */
  online(): void {
    for (const channel of this.#channels.values()) this.#askIfWanted(channel)
  }

  /** Go back to wanting: the connection is gone. */
  offline(): void {
    const final = this.#sentAway && this.#connectFailure()
    for (const channel of this.#channels.values()) {
      if (channel.state !== 'refused') this.#askAnew(channel)
      if (final && channel.waiting) this.#giveUp(channel, channel.waiting, final)
    }
  }

  /** Retry what was refused: the new token may be let in. */
  tokenChanged(): void {
    for (const channel of this.#channels.values()) {
      if (channel.state === 'refused') this.#askAnew(channel)
    }
  }

  /** Forget everything but what components hold: that is requested on the next connection. */
  clear(): void {
    for (const channel of this.#channels.values()) {
      release(channel)
      channel.renewal = false
      channel.members.clear()
      settle(channel, no(channel.name, 'DISCONNECTED', 'Disconnected'))
      this.#askAnew(channel)
      if (!isWanted(channel)) this.#channels.delete(channel.name)
    }
  }

  /** Tell the components that the connection's state has changed. */
  refresh(): void {
    for (const channel of this.#channels.values()) changed(channel)
  }

  /** Keep presence, and return whether listeners may hear an event: not if its channel was left while it was on its way. */
  accepts(name: string, data: unknown): boolean {
    const about = channelOf(data)
    if (about === undefined) return true
    const channel = this.#channels.get(about)
    if (channel) applyPresence(channel, name, data)
    return channel !== undefined
  }

  /** Pass an event to the components that hold its channel; to all, if it has none. */
  tell(name: string, data: unknown): void {
    const about = channelOf(data) ?? (data as RealtimeErrorPayload | undefined)?.channel
    for (const channel of [...this.#channels.values()]) {
      if (about !== undefined && about !== channel.name) continue
      for (const holder of [...channel.holders]) tellHolder(holder, name, data)
    }
  }

  #get(name: string): Channel {
    const channel = this.#channels.get(name) ?? newChannel(name)
    this.#channels.set(name, channel)
    return channel
  }

  /** For `subscribe`: ask, connect first if need be, and see to it that there is an answer in time. */
  #request(channel: Channel): Waiting {
    const waiting = newWaiting()
    channel.waiting = waiting
    if (channel.state === 'refused') this.#askAnew(channel)
    this.#inTime(channel, waiting)
    if (this.#wire.online) this.#askIfWanted(channel)
    return waiting
  }

  async #inTime(channel: Channel, waiting: Waiting): Promise<void> {
    try {
      if (!this.#wire.online) await this.#wire.connect(false)
      const timer = setTimeout(() => this.#giveUp(channel, waiting), this.#options.timeout)
      void waiting.answer.then(() => clearTimeout(timer))
    } catch (error) {
      this.#giveUp(channel, waiting, detailOf(error as ConnectError))
    }
  }

  #giveUp(channel: Channel, waiting: Waiting, reason = channel.error ?? this.#lateness()): void {
    if (channel.waiting !== waiting) return
    if (!channel.renewal) release(channel)
    settle(channel, { ok: false, channel: channel.name, error: reason })
    this.#leaveUnlessWanted(channel)
  }

  #lateness(): RealtimeErrorDetail {
    if (this.#wire.online) return LATE
    return (
      this.#connectFailure() ?? {
        code: 'CONNECTION_FAILED',
        message: 'Not reconnected in time'
      }
    )
  }

  /** The server has ended the connection for good: only the application can open another. */
  get #sentAway(): boolean {
    const { state, lastError } = this.#wire
    return state === 'disconnected' && lastError?.data.code === 'DISCONNECTED'
  }

  #askOrConnect(channel: Channel): void {
    if (this.#wire.online) this.#askIfWanted(channel)
    else this.#wire.connect(true).catch(() => {}) // `connect_error` and the view report it
  }

  #askIfWanted(channel: Channel): void {
    if (channel.state !== 'wanted' || channel.timer !== undefined) return
    const fault = unsayable({ channel: channel.name })
    if (fault === null) this.#ask(channel)
    else this.#refuse(channel, { code: 'INVALID_REQUEST', message: fault })
  }

  #ask(channel: Channel): void {
    this.#moved(channel, 'asking')
    const round = channel.round
    const answered = (answer: unknown) => {
      if (channel.round === round) this.#answered(channel, asResponse(channel.name, answer))
    }
    const ask = () => {
      channel.timer = setTimeout(late, this.#options.timeout)
      this.#wire.emit('realtime:subscribe', { channel: channel.name }, answered)
    }
    // The first request may still be answered, and messages follow that answer: so it counts.
    const late = () => {
      channel.error = LATE
      changed(channel)
      channel.timer = setTimeout(ask, backoff(channel.failures++, this.#options.backoff))
    }
    ask()
  }

  #answered(channel: Channel, response: SubscribeResponse): void {
    if (response.ok) this.#confirm(channel, response)
    else if (AGAIN.has(response.error.code)) this.#askLater(channel, response.error)
    else this.#refuse(channel, response.error)
  }

  #confirm(channel: Channel, response: SubscribeResponse & { ok: true }): void {
    const event = { channel: channel.name, renewed: channel.renewal }
    channel.members = new Map(response.presence.members.map((it) => [it.presenceId, it]))
    channel.renewal = true
    channel.confirmations++
    channel.failures = 0
    channel.error = null
    this.#moved(channel, 'confirmed')
    settle(channel, response)
    this.#tellConfirmed(channel, event)
  }

  /** Tell everyone, until one of them leaves the channel. */
  #tellConfirmed(channel: Channel, event: SubscribedEvent): void {
    for (const told of [...channel.told]) {
      if (channel.told.has(told)) guarded(SUBSCRIBED, told, event)
    }
    if (isConfirmed(channel)) this.#options.notify(SUBSCRIBED, event)
  }

  /** Forget the last answer; the channel is requested on the next connection. */
  #askAnew(channel: Channel): void {
    channel.error = null
    channel.failures = 0
    this.#moved(channel, 'wanted')
  }

  #askLater(channel: Channel, error: RealtimeErrorDetail): void {
    channel.error = error
    this.#moved(channel, 'wanted')
    const again = () => {
      channel.timer = undefined
      this.#askIfWanted(channel)
    }
    channel.timer = setTimeout(again, backoff(channel.failures++, this.#options.backoff))
  }

  #refuse(channel: Channel, error: RealtimeErrorDetail): void {
    const { name, renewal } = channel
    release(channel)
    channel.renewal = false
    channel.members.clear()
    channel.error = error
    this.#moved(channel, 'refused')
    if (!isWanted(channel)) this.#channels.delete(name)
    settle(channel, { ok: false, channel: name, error })
    if (renewal) this.#options.notify('error', { channel: name, ...error })
  }

  #leaveUnlessWanted(channel: Channel): void {
    if (isWanted(channel) || this.#channels.get(channel.name) !== channel) return
    this.#channels.delete(channel.name)
    this.#moved(channel, 'wanted')
    if (this.#wire.online) this.#wire.emit('realtime:unsubscribe', { channel: channel.name })
  }

  /** Enter a state: whatever the old one waited for is void. */
  #moved(channel: Channel, state: Channel['state']): void {
    channel.round++
    clearTimeout(channel.timer)
    channel.timer = undefined
    channel.state = state
    changed(channel)
  }

  #standing(channel: Channel): Pick<ChannelView, 'status' | 'error'> {
    const failure = channel.error ?? this.#connectFailure()
    const error = failure && { channel: channel.name, ...failure }
    if (channel.state === 'confirmed') return { status: 'subscribed', error: null }
    if (channel.state === 'refused') return { status: 'error', error }
    if (this.#wire.state !== 'disconnected') return { status: 'connecting', error }
    return { status: error && !this.#sentAway ? 'error' : 'disconnected', error }
  }

  #connectFailure(): RealtimeErrorDetail | null {
    return this.#wire.lastError && detailOf(this.#wire.lastError)
  }
}

const tellHolder = (holder: Holder, name: string, data: unknown): void =>
  guarded(name, (it) => holder.event(name, it), data)

const detailOf = ({ data, message }: ConnectError): RealtimeErrorDetail => ({
  code: data.code,
  message
})

const LATE = {
  code: 'SUBSCRIBE_TIMEOUT',
  message: 'Subscription acknowledgement timed out'
} as const
