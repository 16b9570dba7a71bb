// The hooks. Who shares a subscription with whom, and who is the last one out, is counted in channels.ts: a mounted hook is
// one holder there. `useSyncExternalStore` mounts, remounts (StrictMode), and moves it to another channel.

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

/** A channel's name; `null` while it is not known yet. */
export type ChannelName = string | null | undefined

/**
 * What to call at which event. With a map of events, `useRealtime<{ UPDATE_order: Order }>(…)`, the names are checked and
 * the payloads typed.
 */
export type Handlers<Events extends EventMap = object> = keyof Events extends never
  ? // biome-ignore lint/suspicious/noExplicitAny: the payload is the application's, and it has not told us its type.
    Record<string, (payload: any) => void>
  : { [Name in keyof KnownEvents<Events>]?: (payload: KnownEvents<Events>[Name]) => void }

/** Publishes to the hook's channel. With `{ ack: true }` the promise tells how it went. */
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
   * `'connecting'` (also while reconnecting), `'subscribed'`, `'error'` (refused: nothing is tried any more) or
   * `'disconnected'` (`disconnect()` was called, the server has disconnected this user, or there is no channel).
   */
  status: ChannelStatus
  /** Why it is not subscribed: the refusal, or what went wrong last while it is being tried again. */
  error: RealtimeErrorPayload | null
  /** Tries again, at once: after a refusal, a disconnect, or in place of a wait. The same function until the channel changes. */
  retry: () => void
  /**
   * How often the server has confirmed the subscription: 0 at first, one more after each reconnect. An effect that reads the
   * state from the database depends on it.
   */
  confirmations: number
}

/**
 * Be subscribed to a channel while the component is mounted; connects by itself, and does not give up.
 *
 * Components on one channel share one subscription. The handlers may be others at every render.
 *
 * @param channel - changes move the subscription.
 * @param handlers - called with the messages of this channel alone, and with the client's own events.
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
 * Who is subscribed to a channel, oneself included. Holds the channel, like `useRealtime`.
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
