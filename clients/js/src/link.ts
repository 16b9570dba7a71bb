// One connection that is kept up: carries out what reconnection.ts decides, with sockets, timers and tokens. Knows no channels.

import type { ManagerOptions, Socket, SocketOptions } from 'socket.io-client'
import type { Server } from './address'
import { type BackoffOptions, backoff } from './backoff'
import { asConnectError, codeOf, failure } from './errors'
import { type Action, IDLE, type LinkEvent, type Phase, step } from './reconnection'
import type { AccessToken, ConnectError, ConnectionState } from './types'

/** Options of socket.io-client, less those that this package decides itself. */
export type TransportOptions = Partial<
  Omit<
    ManagerOptions & SocketOptions,
    'auth' | 'autoConnect' | 'forceNew' | 'multiplex' | 'reconnection' | 'retries'
  >
>

/** How to connect. */
export interface LinkOptions {
  server: Server
  accessToken: AccessToken
  anonKey: string | null
  /** How long a handshake may take, and a first `connect` altogether, in milliseconds. */
  timeout: number
  backoff: BackoffOptions
  transport: TransportOptions
}

/** Is told what happens. */
export interface LinkObserver {
  /** `phase` and `state` have changed. */
  moved(): void
  /** A connection is open: the server must learn everything again. */
  online(): void
  /** The connection is gone. */
  offline(reason: string): void
  /** A handshake failed. */
  failed(error: ConnectError): void
  /** The server sent an event. */
  event(name: string, data: unknown): void
}

/** A connection that held this long, in milliseconds, ends a row of failures. */
const HELD = 1000

/** Codes that are not an answer: the server cannot judge, or not now. */
const LATER = new Set(['UNAVAILABLE', 'RATE_LIMITED'])

const SENT_AWAY = 'The server has disconnected this user, who stays away until connect() is called'

interface Waiter {
  resolve(): void
  reject(error: Error): void
}

/** The connection of one client. */
export class Link {
  /**
   * Why there is no connection: the last handshake's error, or DISCONNECTED where the server has ended it for good. `null`
   * while there is one, and before the first attempt.
   */
  lastError: ConnectError | null = null

  readonly #options: LinkOptions
  readonly #observer: LinkObserver
  #state = IDLE
  #socket: Socket | null = null
  /** Whatever an earlier turn left under way is ignored. */
  #turn = 0
  #timer: ReturnType<typeof setTimeout> | undefined
  #acceptedAt = 0
  readonly #waiters = new Set<Waiter>()

  constructor(options: LinkOptions, observer: LinkObserver) {
    this.#options = options
    this.#observer = observer
  }

  get phase(): Phase {
    return this.#state.phase
  }

  get online(): boolean {
    return this.#state.phase === 'online'
  }

  get state(): ConnectionState {
    if (this.online) return 'connected'
    return this.phase === 'idle' ? 'disconnected' : 'connecting'
  }

  get id(): string | undefined {
    return this.online ? this.#socket?.id : undefined
  }

  /**
   * Connect, or wait for the attempt under way.
   *
   * @param lasting - keep trying when the first attempt fails.
   * @throws when it was refused, failed, or took too long.
   */
  connect(lasting = false): Promise<void> {
    if (this.phase === 'idle') this.lastError = null
    this.#dispatch({ type: 'connect', lasting })
    return this.online ? Promise.resolve() : this.#wait()
  }

  /** Cut the back-off short. */
  readonly wake = (): void => this.#dispatch({ type: 'wake' })

  /** Use another token from now on; `reconnect` with it at once, even if the connection stands. */
  setAccessToken(token: AccessToken, reconnect: boolean): void {
    this.#options.accessToken = token
    const wasOnline = this.online
    if (wasOnline && !reconnect) return
    this.#dispatch({ type: 'token', held: this.#held })
    if (wasOnline) this.#observer.offline('io client disconnect')
  }

  disconnect(): void {
    const wasOnline = this.online
    this.lastError = null
    this.#dispatch({ type: 'disconnect' })
    this.#rejectAll(failure('DISCONNECTED', 'Disconnected'))
    if (wasOnline) this.#observer.offline('io client disconnect')
  }

  /** Send an event; `answered` is called with the server's answer, if this connection lives to see it. */
  emit(event: string, data: unknown, answered?: (answer: unknown) => void): void {
    if (answered) this.#socket?.emit(event, data, answered)
    else this.#socket?.emit(event, data)
  }

  /**
   * Send an event, and return the server's answer; `null` if it takes too long, or the connection is lost first.
   *
   * @throws TypeError - when JSON cannot represent `data`.
   */
  ask(event: string, data: unknown): Promise<unknown> {
    return new Promise((resolve) => {
      const answered = (lost: Error | null, answer: unknown) => resolve(lost ? null : answer)
      this.#socket?.timeout(this.#options.timeout).emit(event, data, answered)
    })
  }

  /** Take a step of the table. It is carried out before anybody is told, so listeners may call anything. */
  #dispatch(event: LinkEvent): void {
    const before = this.phase
    const [state, action] = step(this.#state, event)
    this.#state = state
    if (action !== null) this.#do(action)
    if (state.phase === before) return
    this.#watchTheNetwork(before)
    this.#observer.moved()
  }

  #do(action: Action & object): void {
    this.#drop()
    if (action.do === 'open') void this.#open()
    if (action.do !== 'wait') return
    const due = () => this.#dispatch({ type: 'due' })
    this.#timer = setTimeout(due, backoff(action.failures, this.#options.backoff))
  }

  /** Get a token and open a socket: a fresh one each time, with nothing left over from the last. */
  async #open(): Promise<void> {
    const turn = this.#turn
    const current = () => turn === this.#turn
    const failed = (error: unknown) => current() && this.#failed(asConnectError(error))
    this.#timer = setTimeout(failed, this.#options.timeout, this.#lateness())
    try {
      const [{ io }, auth] = await Promise.all([import('socket.io-client'), this.#credentials()])
      if (!current()) return
      const socket = io(this.#options.server.origin, this.#socketOptions(auth))
      this.#socket = socket
      socket.on('connect', () => current() && this.#accepted())
      socket.on('connect_error', failed)
      socket.on('disconnect', (reason) => current() && this.#lost(reason))
      // socket.io-client does not report a connection that is closed cleanly before it is open. (`forced close` is its
      // own doing, before it reports a CONNECT_ERROR.)
      socket.io.engine.on('close', (reason: string) => {
        if (this.phase === 'handshake' && reason !== 'forced close') failed(reason)
      })
      socket.onAny((name: string, data: unknown) => current() && this.#event(name, data))
    } catch (error) {
      failed(error)
    }
  }

  async #credentials(): Promise<{ token?: string }> {
    const { accessToken, anonKey } = this.#options
    const token = (typeof accessToken === 'function' ? await accessToken() : accessToken) || anonKey
    return token ? { token } : {}
  }

  #socketOptions(auth: { token?: string }): Partial<ManagerOptions & SocketOptions> {
    return {
      path: `${this.#options.server.path}/socket.io`,
      transports: ['websocket', 'polling'],
      tryAllTransports: true,
      ...this.#options.transport,
      auth,
      forceNew: true,
      reconnection: false
    }
  }

  #accepted(): void {
    clearTimeout(this.#timer)
    this.#acceptedAt = Date.now()
    this.lastError = null
    this.#dispatch({ type: 'accepted' })
    this.#observer.online()
    this.#settle((waiter) => waiter.resolve())
  }

  #failed(error: ConnectError): void {
    this.lastError = error
    this.#dispatch({ type: 'failed', later: LATER.has(error.data.code) })
    if (this.state === 'disconnected') this.#rejectAll(error)
    this.#observer.failed(error)
  }

  #lost(reason: string): void {
    const isFinal = reason === 'io server disconnect'
    if (isFinal) this.lastError = failure('DISCONNECTED', SENT_AWAY)
    this.#dispatch(isFinal ? { type: 'ended' } : { type: 'lost', held: this.#held })
    this.#observer.offline(reason)
  }

  get #held(): boolean {
    return Date.now() - this.#acceptedAt >= HELD
  }

  #event(name: string, data: unknown): void {
    if (name === 'realtime:error' && codeOf(data) === 'TOKEN_EXPIRED')
      this.#dispatch({ type: 'expired' })
    this.#observer.event(name, data)
  }

  /** Let go of the current socket and timer; nothing is heard from them again. */
  #drop(): void {
    this.#turn++
    clearTimeout(this.#timer)
    this.#socket?.offAny().off().disconnect()
    this.#socket = null
  }

  /** Wait for a connection: what `connect` promises. */
  async #wait(): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined
    try {
      await new Promise<void>((resolve, reject) => {
        const waiter = { resolve, reject }
        this.#waiters.add(waiter)
        timer = setTimeout(() => this.#giveUp(waiter), this.#options.timeout)
      })
    } finally {
      clearTimeout(timer)
    }
  }

  #giveUp(waiter: Waiter): void {
    const error = this.lastError ?? this.#lateness()
    this.#waiters.delete(waiter)
    waiter.reject(error)
    this.#dispatch({ type: 'giveUp' })
    if (this.state === 'disconnected') this.#rejectAll(error)
  }

  #lateness(): ConnectError {
    return failure('CONNECTION_FAILED', `Connection timeout after ${this.#options.timeout}ms`)
  }

  #rejectAll(error: Error): void {
    this.#settle((waiter) => waiter.reject(error))
  }

  #settle(how: (waiter: Waiter) => void): void {
    const waiters = [...this.#waiters]
    this.#waiters.clear()
    waiters.forEach(how)
  }

  /** In a browser: end a pause when the network is back, or the page is visible again. */
  #watchTheNetwork(before: Phase): void {
    const isOff = this.phase === 'idle'
    if (isOff === (before === 'idle')) return
    const change = isOff ? 'removeEventListener' : 'addEventListener'
    // Node has neither. React Native has a `window` that cannot be listened to; some libraries there make a `document`.
    globalThis.window?.[change]?.('online', this.wake)
    globalThis.document?.[change]?.('visibilitychange', this.#looked)
  }

  readonly #looked = (): void => {
    if (document.visibilityState === 'visible') this.wake()
  }
}
