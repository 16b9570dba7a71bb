// The other end of `Channels`, for tests: it remembers what was asked, and answers when it is told to.

import { Channels, type Wire } from '../src/channels'
import { failure } from '../src/errors'
import type {
  ConnectError,
  ConnectionState,
  RealtimeErrorPayload,
  SubscribedEvent
} from '../src/types'

export class FakeWire implements Wire {
  state: ConnectionState = 'disconnected'
  lastError: ConnectError | null = null
  sent: [string, string][] = []
  reported: RealtimeErrorPayload[] = []
  confirmed: SubscribedEvent[] = []
  connects: boolean[] = []
  wakes = 0
  readonly channels: Channels
  #answers: ((answer: unknown) => void)[] = []
  #waiting: { resolve(): void; reject(error: Error): void }[] = []

  constructor(timeout = 10_000) {
    this.channels = new Channels(this, {
      timeout,
      backoff: { minDelay: 1000, maxDelay: 20_000 },
      notify: (name, data) => {
        if (name === 'error') this.reported.push(data as RealtimeErrorPayload)
        else this.confirmed.push(data as SubscribedEvent)
        this.channels.tell(name, data)
      }
    })
  }

  wake(): void {
    this.wakes++
  }

  get online(): boolean {
    return this.state === 'connected'
  }

  connect(lasting: boolean): Promise<void> {
    this.connects.push(lasting)
    this.state = 'connecting'
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }))
  }

  emit(event: string, data: unknown, answered?: (answer: unknown) => void): void {
    this.sent.push([event.replace('realtime:', ''), (data as { channel: string }).channel])
    if (answered) this.#answers.push(answered)
  }

  /** The connection is there. */
  open(): void {
    this.state = 'connected'
    this.lastError = null
    this.channels.refresh()
    this.channels.online()
    for (const { resolve } of this.#waiting.splice(0)) resolve()
  }

  /** It is lost, and being made again. */
  lose(): void {
    this.state = 'connecting'
    this.channels.refresh()
    this.channels.offline()
  }

  /** It cannot be made, and nobody tries any more. */
  fail(error: ConnectError): void {
    this.state = 'disconnected'
    this.lastError = error
    this.channels.refresh()
    for (const { reject } of this.#waiting.splice(0)) reject(error)
  }

  /** The server has disconnected this user. */
  sendAway(): void {
    this.state = 'disconnected'
    this.lastError = failure('DISCONNECTED', 'sent away')
    this.channels.refresh()
    this.channels.offline()
  }

  /** Answer the oldest question that has none yet. */
  answer(answer: unknown): void {
    this.#answers.shift()?.(answer)
  }

  yes(...members: string[]): void {
    const joinedAt = '2026-01-01T00:00:00.000Z'
    const list = members.map((presenceId) => ({ type: 'user', presenceId, joinedAt }))
    this.answer({ ok: true, channel: 'any', presence: { members: list } })
  }

  no(code: string): void {
    this.answer({ ok: false, channel: 'any', error: { code, message: code } })
  }

  /** The server sends an event of a channel. */
  say(channel: string, name: string, more: object = {}): boolean {
    const data = { ...more, meta: { channel } }
    const accepted = this.channels.accepts(name, data)
    if (accepted) this.channels.tell(name, data)
    return accepted
  }
}
