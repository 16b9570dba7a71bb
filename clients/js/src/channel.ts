// One channel as its client sees it: what is known of it, and what follows from that or from the server's messages about it.
// channels.ts moves it from state to state.

import type {
  PresenceEvent,
  PresenceMember,
  RealtimeErrorDetail,
  RealtimeErrorPayload,
  SubscribedEvent,
  SubscribeResponse
} from './types'

/** A channel's status, for a component that shows it. */
export type ChannelStatus = 'connecting' | 'subscribed' | 'disconnected' | 'error'

/** What a component sees of a channel: a new object whenever it changes, and only then. */
export interface ChannelView {
  readonly status: ChannelStatus
  /** Why it is not subscribed: the refusal, or, while it is being retried, the last failure. */
  readonly error: RealtimeErrorPayload | null
  /** How often it has been confirmed. */
  readonly confirmations: number
  readonly members: readonly PresenceMember[]
}

/** A component that holds a channel. */
export interface Holder {
  /** Its view has changed. */
  changed(): void
  /** A message of the channel, or an event of the client itself. */
  event(name: string, data: unknown): void
}

/** An answer that `subscribe` has promised. */
export interface Waiting {
  readonly answer: Promise<SubscribeResponse>
  settle(response: SubscribeResponse): void
}

/** What is known of a channel. */
export interface Channel {
  readonly name: string
  readonly holders: Set<Holder>
  /** subscribe() was called, and unsubscribe() not. */
  subscribed: boolean
  /** What to call at each confirmation, as given to subscribe(). */
  readonly told: Set<(event: SubscribedEvent) => void>
  state: 'wanted' | 'asking' | 'confirmed' | 'refused'
  /** It has been confirmed before: nobody waits for the answer to the next request. */
  renewal: boolean
  confirmations: number
  members: Map<string, PresenceMember>
  waiting: Waiting | null
  /** An answer of an earlier round is ignored. */
  round: number
  failures: number
  timer: ReturnType<typeof setTimeout> | undefined
  error: RealtimeErrorDetail | null
  view: ChannelView | null
}

export const isConfirmed = (channel: Channel): boolean => channel.state === 'confirmed'
export const isWanted = (channel: Channel): boolean =>
  channel.subscribed || channel.holders.size > 0

export const newChannel = (name: string): Channel => ({
  name,
  holders: new Set(),
  subscribed: false,
  told: new Set(),
  state: 'wanted',
  renewal: false,
  confirmations: 0,
  members: new Map(),
  waiting: null,
  round: 0,
  failures: 0,
  timer: undefined,
  error: null,
  view: null
})

export function newWaiting(): Waiting {
  let settle: Waiting['settle'] = () => {}
  const answer = new Promise<SubscribeResponse>((resolve) => {
    settle = resolve
  })
  return { answer, settle }
}

/** Drop what subscribe() wanted; what components hold stays. */
export function release(channel: Channel): void {
  channel.subscribed = false
  channel.told.clear()
}

/** Answer whoever waits. */
export function settle(channel: Channel, response: SubscribeResponse): void {
  const { waiting } = channel
  channel.waiting = null
  waiting?.settle(response)
}

/** Tell the components that their view has changed. */
export function changed(channel: Channel): void {
  channel.view = null
  for (const holder of [...channel.holders]) holder.changed()
}

export const yes = (channel: Channel): SubscribeResponse => ({
  ok: true,
  channel: channel.name,
  presence: { members: [...channel.members.values()] }
})

export const no = (channel: string, code: string, message: string): SubscribeResponse => ({
  ok: false,
  channel,
  error: { code, message }
})

/** Bring the server's answer, whatever it was, into the promised shape. */
export function asResponse(channel: string, answer: unknown): SubscribeResponse {
  const { ok, presence, error } = (answer ?? {}) as Partial<SubscribeResponse>
  const members = Array.isArray(presence?.members) ? presence.members : []
  if (ok) return { ok, channel, presence: { members } }
  return error
    ? { ok: false, channel, error }
    : no(channel, 'INTERNAL_ERROR', 'Malformed answer from the server')
}

/** Return the channel that a message is about. */
export function channelOf(data: unknown): string | undefined {
  const channel = (data as { meta?: { channel?: unknown } } | null | undefined)?.meta?.channel
  return typeof channel === 'string' ? channel : undefined
}

export function applyPresence(channel: Channel, name: string, data: unknown): void {
  const { member } = data as Partial<PresenceEvent>
  if (!member) return
  if (name === 'presence:join') channel.members.set(member.presenceId, member)
  else if (name === 'presence:leave') channel.members.delete(member.presenceId)
  else return
  changed(channel)
}
