// The hooks. channels.ts counts who shares a subscription, and who is the last one out: a mounted hook is one holder there.
// `useSyncExternalStore` mounts it, remounts it (StrictMode), and moves it to another channel.

import { useCallback, useInsertionEffect, useRef, useSyncExternalStore } from 'react'
import type { ChannelStatus, ChannelView } from '../channel'
import type {
  EventMap,
  KnownEvents,
  PresenceMember,
  PublishOptions,
  PublishResponse,
  RealtimeErrorPayload
} from '../types'
import { channelsOf, useRealtimeClient } from './provider'

/** A channel's name; `null` while it is unknown. */
export type ChannelName = string | null | undefined

/**
 * What to call at each event. With a map of events, `useRealtime<{ UPDATE_order: Order }>(…)`, the names are checked and
 * the payloads typed.
 */
export type Handlers<Events extends EventMap = object> = keyof Events extends never
  ? // biome-ignore lint/suspicious/noExplicitAny: the payload is the application's, of a type that it has not declared.
    Record<string, (payload: any) => void>
  : { [Name in keyof KnownEvents<Events>]?: (payload: KnownEvents<Events>[Name]) => void }

/** Publishes to the hook's channel. With `{ ack: true }` it resolves to the answer. */
export interface Publish {
  (event: string, payload: object): Promise<void>
  (
    event: string,
    payload: object,
    options: PublishOptions & { ack: true }
  ): Promise<PublishResponse>
}

/** What `useRealtime` returns. */
export interface UseRealtime {
  /** The same function until the channel changes. */
  publish: Publish
  /**
   * `'connecting'` (also while reconnecting), `'subscribed'`, `'error'` (refused: nothing more is tried) or
   * `'disconnected'` (`disconnect()` was called, the server has disconnected this user, or there is no channel).
   */
  status: ChannelStatus
  /** Why it is not subscribed: the refusal, or, while it is being retried, the last failure. */
  error: RealtimeErrorPayload | null
  /** Tries again at once: after a refusal, a disconnect, or instead of a wait. The same function until the channel changes. */
  retry: () => void
  /**
   * How often the server has confirmed the subscription: 0 at first, one more after each reconnect. A dependency for effects
   * that read the state from the database.
   */
  confirmations: number
}

/**
 * Subscribe to a channel while the component is mounted. Connects by itself, and does not give up.
 *
 * Components on one channel share one subscription. The handlers may change at every render.
 *
 * @param channel - a change moves the subscription.
 * @param handlers - called with this channel's messages only, and with the client's own events.
 */
export function useRealtime<Events extends EventMap = object>(
  channel: ChannelName,
  handlers?: Handlers<Events>
): UseRealtime {
  const client = useRealtimeClient()
  const { realtime } = client
  const latest = useRef(handlers)
  useInsertionEffect(() => {
    latest.current = handlers
  })
  const handle = useCallback((name: string, data: unknown) => {
    const known = latest.current as Record<string, (payload: unknown) => void> | undefined
    if (known && Object.hasOwn(known, name)) known[name]?.(data)
  }, [])
  const { status, error, confirmations } = useChannel(channel, handle)
  const retry = useCallback(() => {
    if (channel != null) channelsOf(client).retry(channel)
  }, [client, channel])
  const publish = useCallback(
    async (event: string, payload: object, options?: PublishOptions) => {
      if (channel == null) throw new Error('There is no channel to publish to yet')
      return realtime.publish(channel, event, payload, options)
    },
    [realtime, channel]
  ) as Publish
  return { publish, status, error, retry, confirmations }
}

/**
 * Return who is subscribed to a channel, yourself included. Holds the channel, like `useRealtime`.
 *
 * @returns a new array at each change.
 */
export function usePresence(channel: ChannelName): readonly PresenceMember[] {
  return useChannel(channel, ignore).members
}

function useChannel(name: ChannelName, event: (name: string, data: unknown) => void): ChannelView {
  const channels = channelsOf(useRealtimeClient())
  const hold = useCallback(
    (changed: () => void) => (name == null ? ignore : channels.hold(name, { changed, event })),
    [channels, name, event]
  )
  const view = useCallback(
    () => (name == null ? NO_CHANNEL : channels.view(name)),
    [channels, name]
  )
  return useSyncExternalStore(hold, view, view)
}

const NO_CHANNEL: ChannelView = {
  status: 'disconnected',
  error: null,
  confirmations: 0,
  members: []
}
const ignore = () => {}
