// createClient: checks its options and fills in the defaults.

import { serverAt } from './address'
import { CHANNELS } from './channels'
import type { TransportOptions } from './link'
import { Realtime } from './realtime'
import type { AccessToken, EventMap } from './types'

/** What `createClient` takes. */
export interface ClientOptions {
  /** Where the server is: `https://your-project.example.com`. A path in it is where the server is mounted. */
  baseUrl: string
  /** A user's token; or, better, a function that returns one, called at every handshake. */
  accessToken?: AccessToken
  /** Used where there is no access token. */
  anonKey?: string | null
  /** How long the server has for a handshake or an answer, in milliseconds. Default: 10 000. */
  timeout?: number
  /** The shortest wait before another attempt, in milliseconds; doubled after each failure. Default: 1000. */
  reconnectDelay?: number
  /** The longest wait before another attempt, in milliseconds. Default: 20 000. */
  reconnectDelayMax?: number
  /** Further options of socket.io-client, such as `transports`, `path` or `extraHeaders`. */
  socketOptions?: TransportOptions
}

/** What `createClient` makes. */
export interface RealtimeClient<Events extends EventMap = object> {
  /** Channels, messages, presence. */
  readonly realtime: Realtime<Events>
}

/**
 * Create a client. It does not connect yet.
 *
 * @typeParam Events - the payloads of your events, by name: `createClient<{ UPDATE_order: Order }>(…)`.
 * @throws TypeError - when `baseUrl` is not an http(s) URL.
 */
export function createClient<Events extends EventMap = object>(
  options: ClientOptions
): RealtimeClient<Events> {
  const { timeout = 10_000, reconnectDelay = 1000, reconnectDelayMax = 20_000 } = options
  const client = {}
  const realtime = new Realtime<Events>(
    {
      server: serverAt(options.baseUrl),
      accessToken: options.accessToken ?? null,
      anonKey: options.anonKey ?? null,
      timeout,
      backoff: { minDelay: reconnectDelay, maxDelay: reconnectDelayMax },
      transport: options.socketOptions ?? {}
    },
    (channels) => Object.defineProperty(client, CHANNELS, { value: channels })
  )
  return Object.assign(client, { realtime })
}
