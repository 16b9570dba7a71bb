// What this client is subscribed to, wants to be, and who is there. Knows the wire's three verbs, but no socket.
//
//   state      event                                          → state
//   ─────────  ─────────────────────────────────────────────  ───────────────────────────────────────────────────────
//   wanted     there is a connection                            asking      `realtime:subscribe` is sent
//   asking     ok                                               confirmed   presence is replaced by the new snapshot; then
//                                                                           `realtime:subscribed`, before any message of it
//   asking     no answer in time                                asking      asked again after a back-off; the first answer counts
//   asking     UNAVAILABLE, RATE_LIMITED                        wanted      the same: it was no no
//   asking     TOKEN_EXPIRED                                    wanted      the same: the server ends that connection
//   asking     any other refusal                                gone        told to who waits; else reported as `error`
//   asking,    the connection is lost                           wanted      asked again on the next one
//   confirmed
//   any        the server has sent this client away             wanted      the same, once the application connects again; who
//                                                                           waits is answered DISCONNECTED
//   any        nobody wants it any more                         gone        `realtime:unsubscribe` is sent
//
// Somebody wants a channel: who called subscribe() and not unsubscribe(), and every component that *holds* it. For those a
// refused channel stays known as `refused`, until another token, another holder or retry() gives reason to ask again.
// subscribe() gets an answer within its timeout: a channel that has never been confirmed is given up then, and nothing of it
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

/** Where the React hooks, which are built apart, find the channels of a client. */
export const CHANNELS = Symbol.for('@insforge-realtime/client channels')

/** The event of a confirmed subscription: a name that no application can publish. */
export const SUBSCRIBED = 'realtime:subscribed'

/** What the channels need of the connection. */
export interface Wire {
  readonly online: boolean
  readonly state: ConnectionState
  readonly lastError: ConnectError | null
  connect(lasting: boolean): Promise<void>
  /** Do not sit out a back-off. */
  wake(): void
  emit(event: string, data: unknown, answered?: (answer: unknown) => void): void
}

interface Options {
  /** How long the server has for an answer, in milliseconds. */
  timeout: number
  backoff: BackoffOptions
  /** Where the events go: confirmations, and, as `error`, the refusals that nobody waits for. */
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

  /** The names of those that the server has confirmed, on the connection that there is now. */
  confirmed(): string[] {
    return [...this.#channels.values()].filter(isConfirmed).map(({ name }) => name)
  }

  /** Whether a component is there that waits for a channel. */
  get held(): boolean {
    return [...this.#channels.values()].some(({ holders }) => holders.size > 0)
  }

  members(name: string): PresenceMember[] {
    return [...(this.#channels.get(name)?.members.values() ?? [])]
  }

  /** Want a channel. Several calls while one waits share its answer. */
  subscribe(name: string, told?: (event: SubscribedEvent) => void): Promise<SubscribeResponse> {
    const channel = this.#get(name)
    const isNew = told && !channel.told.has(told)
    channel.subscribed = true
    if (told) channel.told.add(told)
    if (isNew && isConfirmed(channel)) guarded(SUBSCRIBED, told, { channel: name, renewed: false })
    if (isConfirmed(channel)) return Promise.resolve(yes(channel))
    return (channel.waiting ?? this.#request(channel)).answer
  }

  /** Want it no more; components that hold it keep it. */
  unsubscribe(name: string): void {
    const channel = this.#channels.get(name)
    if (!channel) return
    release(channel)
    settle(channel, no(name, 'SUBSCRIPTION_CANCELLED', 'Subscription cancelled'))
    this.#leaveUnlessWanted(channel)
  }

  /** Want a channel for as long as a component is there. The function that it returns lets go of it. */
  hold(name: string, holder: Holder): () => void {
    const channel = this.#get(name)
    channel.holders.add(holder)
    if (isConfirmed(channel)) tellHolder(holder, SUBSCRIBED, { channel: name, renewed: false })
    if (channel.state === 'refused') this.#askAnew(channel)
    if (!this.#sentAway) this.#askOrConnect(channel)
    return () => {
      channel.holders.delete(holder)
      // A component that is mounted again in the same moment, or another one on the same channel, finds it still there.
      queueMicrotask(() => this.#leaveUnlessWanted(channel))
    }
  }

  /** Try again, at once: what was refused, what waits, and a connection that has ended. */
  retry(name: string): void {
    const channel = this.#channels.get(name)
    if (!channel) return
    if (channel.state === 'refused' || channel.state === 'wanted') this.#askAnew(channel)
    this.#askOrConnect(channel)
    this.#wire.wake()
  }

  /** What a component sees now. */
  view(name: string): ChannelView {
    const channel = this.#channels.get(name)
    if (!channel) return UNKNOWN
    const { confirmations, members } = channel
    channel.view ??= { ...this.#standing(channel), confirmations, members: [...members.values()] }
    return channel.view
  }

  /** A connection is there. */
  online(): void {
    for (const channel of this.#channels.values()) this.#askIfWanted(channel)
  }

  /** The connection is gone. */
  offline(): void {
    const final = this.#sentAway && this.#connectFailure()
    for (const channel of this.#channels.values()) {
      if (channel.state !== 'refused') this.#askAnew(channel)
      if (final && channel.waiting) this.#giveUp(channel, channel.waiting, final)
    }
  }

  /** Whoever was refused may be let in with the new token. */
  tokenChanged(): void {
    for (const channel of this.#channels.values()) {
      if (channel.state === 'refused') this.#askAnew(channel)
    }
  }

  /** Forget all, except what components hold: that is asked for when there is a connection again. */
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

  /** Tell the components that what the connection does has changed. */
  refresh(): void {
    for (const channel of this.#channels.values()) changed(channel)
  }

  /** Whether anybody may hear of an event: not of a message of a channel that was left while it was on its way. */
  accepts(name: string, data: unknown): boolean {
    const about = channelOf(data)
    if (about === undefined) return true
    const channel = this.#channels.get(about)
    if (channel) applyPresence(channel, name, data)
    return channel !== undefined
  }

  /** Pass an event on to the components that hold the channel that it is about; to all, if it is about none. */
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
        message: 'Not connected again in time'
      }
    )
  }

  /** The server has ended the connection for good: only the application itself makes another. */
  get #sentAway(): boolean {
    const { state, lastError } = this.#wire
    return state === 'disconnected' && lastError?.data.code === 'DISCONNECTED'
  }

  #askOrConnect(channel: Channel): void {
    if (this.#wire.online) this.#askIfWanted(channel)
    else this.#wire.connect(true).catch(() => {}) // it is told as `connect_error`, and in the view
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
    // What was asked first may still be answered, and messages come after that answer: so it counts.
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

  /** Each of whom may leave the channel; then nobody else is told. */
  #tellConfirmed(channel: Channel, event: SubscribedEvent): void {
    for (const told of [...channel.told]) {
      if (channel.told.has(told)) guarded(SUBSCRIBED, told, event)
    }
    if (isConfirmed(channel)) this.#options.notify(SUBSCRIBED, event)
  }

  /** Forget what was answered before; it is asked when there is a connection. */
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

  /** Into another state: what the old one waited for is void. */
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
