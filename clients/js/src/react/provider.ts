// Which client the hooks of a tree use.

import { createContext, createElement, type ReactElement, type ReactNode, useContext } from 'react'
import { CHANNELS, type Channels } from '../channels'
import type { RealtimeClient } from '../client'

const ClientContext = createContext<RealtimeClient | null>(null)

/** What `RealtimeProvider` takes. */
export interface RealtimeProviderProps {
  /** Made by `createClient`, once, outside of components. */
  // biome-ignore lint/suspicious/noExplicitAny: a client with any events.
  client: RealtimeClient<any>
  children?: ReactNode
}

/** Gives a client to all the hooks below it. */
export function RealtimeProvider({ client, children }: RealtimeProviderProps): ReactElement {
  return createElement(ClientContext.Provider, { value: client }, children)
}

/**
 * The client that the provider above has given.
 *
 * @throws when there is no provider.
 */
export function useRealtimeClient(): RealtimeClient {
  const client = useContext(ClientContext)
  if (client) return client
  throw new Error('This component needs a <RealtimeProvider client={…}> above it')
}

/** The channels of a client of this package. */
export function channelsOf(client: RealtimeClient): Channels {
  const channels = (client as unknown as Record<symbol, Channels | undefined>)[CHANNELS]
  if (channels) return channels
  throw new Error(
    '<RealtimeProvider> needs a client of createClient from @insforge-realtime/client'
  )
}
