// The public verbs, and nothing else: each is a line or two on top of the link, the channels and the listeners.

import { Channels, SUBSCRIBED } from './channels'
import { failure } from './errors'
import { unsayable } from './json'
import { Link, type LinkOptions } from './link'
import { Listeners } from './listeners'
import type {
  AccessToken,
  ConnectionState,
  EventCallback,
  EventMap,
  KnownEvents,
  PresenceMember,
  PublishOptions,
  PublishResponse,
  RemoveListener,
  SocketMessage,
  SubscribeOptions,
  SubscribeResponse
} from './types'

/** The realtime side of a client, made by `createClient`. */
export class Realtime<Events extends EventMap = object> {
  readonly #listeners = new Listeners()
  readonly #link: Link
  readonly #channels: Channels

  /** @internal */
  constructor(options: LinkOptions, expose: (channels: Channels) => void) {
    this.#link = new Link(options, {
      moved: () => this.#channels.refresh(),
      online: () => {
        this.#channels.online()
        this.#notify('connect', undefined)
      },
      offline: (reason) => {
        this.#channels.offline()
        this.#notify('disconnect', reason)
      },
      failed: (error) => this.#notify('connect_error', error),
      event: (name, data) => this.#received(name, data)
    })
    this.#channels = new Channels(this.#link, {
      timeout: options.timeout,
      backoff: options.backoff,
      notify: (name, data) => this.#notify(name, data)
    })
    expose(this.#channels)
  }

  /** Whether there is a connection now. */
  get isConnected(): boolean {
    return this.#link.online
  }

  /** `'disconnected'`, `'connecting'` (also while reconnecting) or `'connected'`. */
  get connectionState(): ConnectionState {
    return this.#link.state
  }

  /** The connection's id, while there is one; a new one after each reconnect. */
  get socketId(): string | undefined {
    return this.#link.id
  }

  /**
   * Connect. From then on the connection is kept up until `disconnect()`.
   *
   * @throws ConnectError - when the first attempt fails, or none succeeds within the timeout. The client stops trying then,
   * unless it was reconnecting.
   */
  connect(): Promise<void> {
    return this.#link.connect(this.#channels.held)
  }

  /**
   * Subscribe to a channel, connecting first if need be. The subscription is renewed after each reconnect.
   *
   * @param channel - such as `order:123`.
   * @param options - `onSubscribed`: what to call at each confirmation.
   * @returns `{ ok: true, … }` with the members, or `{ ok: false, error }`. It never rejects.
   */
  subscribe(channel: string, options: SubscribeOptions = {}): Promise<SubscribeResponse> {
    return this.#channels.subscribe(channel, options.onSubscribed)
  }

  /** Leave a channel. None of its messages reaches a listener from now on. */
  unsubscribe(channel: string): void {
    this.#channels.unsubscribe(channel)
  }

  /**
   * Publish to a channel that you are subscribed to. Without `ack` a refusal arrives as the event `error`.
   *
   * @param channel - the channel.
   * @param event - the event's name.
   * @param payload - an object that JSON can represent.
   * @throws with `data.code` `NOT_CONNECTED` when there is no connection (it is not queued; `cause` is why), or `INVALID_REQUEST` when
   * JSON cannot represent it (NaN, an infinity, a BigInt, half a surrogate pair, a cycle): nothing was sent.
   */
  publish(channel: string, event: string, payload: object): Promise<void>
  /**
   * Publish, and wait until the server has stored the message.
   *
   * @returns `{ ok: true, messageId }`, or `{ ok: false, error }`. After `DISCONNECTED` and `PUBLISH_TIMEOUT` nobody knows
   * whether it was stored.
   */
  publish(
    channel: string,
    event: string,
    payload: object,
    options: PublishOptions & { ack: true }
  ): Promise<PublishResponse>
  publish(
    channel: string,
    event: string,
    payload: object,
    options?: PublishOptions
  ): Promise<PublishResponse | undefined>
  async publish(
    channel: string,
    event: string,
    payload: object,
    options: PublishOptions = {}
  ): Promise<unknown> {
    if (!this.#link.online) throw this.#notConnected()
    const message = { channel, event, payload }
    const fault = unsayable(message)
    if (fault !== null) throw failure('INVALID_REQUEST', fault)
    if (options.ack) return this.#acknowledged(channel, message)
    this.#link.emit('realtime:publish', message)
    return undefined
  }

  /**
   * Call `callback` at each event of this name.
   *
   * @param event - the name given to `realtime.publish`, or `connect`, `connect_error`, `disconnect`, `error`,
   * `realtime:subscribed`, `presence:join`, `presence:leave`.
   * @returns a function that removes the listener.
   */
  on<Name extends keyof KnownEvents<Events> & string>(
    event: Name,
    callback: EventCallback<KnownEvents<Events>[Name]>
  ): RemoveListener
  on<T = SocketMessage>(event: string, callback: EventCallback<T>): RemoveListener
  on(event: string, callback: EventCallback<never>): RemoveListener {
    this.#listeners.add(event, callback)
    return () => this.#listeners.remove(event, callback)
  }

  /** Call `callback` at the next event of this name, and not again. */
  once<Name extends keyof KnownEvents<Events> & string>(
    event: Name,
    callback: EventCallback<KnownEvents<Events>[Name]>
  ): RemoveListener
  once<T = SocketMessage>(event: string, callback: EventCallback<T>): RemoveListener
  once(event: string, callback: EventCallback<never>): RemoveListener {
    this.#listeners.add(event, callback, true)
    return () => this.#listeners.remove(event, callback)
  }

  /** Remove a listener: the very function given to `on` or `once`. */
  off<Name extends keyof KnownEvents<Events> & string>(
    event: Name,
    callback: EventCallback<KnownEvents<Events>[Name]>
  ): void
  off<T = SocketMessage>(event: string, callback: EventCallback<T>): void
  off(event: string, callback: EventCallback<never>): void {
    this.#listeners.remove(event, callback)
  }

  /** End the connection and forget all subscriptions. Listeners stay. */
  disconnect(): void {
    this.#channels.clear()
    this.#link.disconnect()
  }

  /** Return the channels that the server has confirmed on the current connection. */
  getSubscribedChannels(): string[] {
    return this.#channels.confirmed()
  }

  /** Return who is subscribed to a channel, yourself included; empty if you are not. */
  getPresenceState(channel: string): PresenceMember[] {
    return this.#channels.members(channel)
  }

  /**
   * Use another token, or another function that returns one.
   *
   * An open connection is replaced, so that the policies judge the new user; give `reconnect: false` for a fresh token of
   * the same user, which is then used at the next handshake. A client that is reconnecting tries at once.
   */
  setAccessToken(accessToken: AccessToken, { reconnect = true } = {}): void {
    if (reconnect) this.#channels.tokenChanged()
    this.#link.setAccessToken(accessToken, reconnect)
  }

  #received(name: string, data: unknown): void {
    if (name === 'realtime:error') this.#notify('error', data)
    else if (!OWN.has(name) && this.#channels.accepts(name, data)) this.#notify(name, data)
  }

  #notify(name: string, data: unknown): void {
    this.#listeners.notify(name, data)
    this.#channels.tell(name, data)
  }

  #notConnected(): Error {
    const why = this.#link.lastError
    const reason = why ? `${why.message} (${why.data.code})` : 'call connect() first'
    return failure('NOT_CONNECTED', `Not connected to the realtime server: ${reason}`, why)
  }

  async #acknowledged(channel: string, message: object): Promise<PublishResponse> {
    const answer = await this.#link.ask('realtime:publish', message)
    if (answer !== null) return answer as PublishResponse
    const [code, reason] = this.#link.online
      ? ['PUBLISH_TIMEOUT', 'Publish acknowledgement timed out']
      : ['DISCONNECTED', 'Connection lost before the publish was acknowledged']
    return { ok: false, channel, error: { code, message: reason } }
  }
}

/** Names reserved for the client itself. */
const OWN = new Set(['connect', 'connect_error', 'disconnect', 'error', SUBSCRIBED])
