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

/**
 * Gives a client to all the hooks below it. Where the page has two copies of React, no hook can work: it says so in place of
 * its children, and in the console.
 */
export function RealtimeProvider({ client, children }: RealtimeProviderProps): ReactElement {
  try {
    // biome-ignore lint/correctness/useHookAtTopLevel: it is always called; what is caught is that nobody answers it.
    useClientContext()
  } catch (error) {
    console.error(error)
    return String(error) as unknown as ReactElement // text: an element of another version of React would be none
  }
  return createElement(ClientContext.Provider, { value: client }, children)
}

function useClientContext(): RealtimeClient | null {
  try {
    // biome-ignore lint/correctness/useHookAtTopLevel: the same.
    return useContext(ClientContext)
  } catch (cause) {
    // Without a renderer of its own, React has nobody who answers its hooks, and says `null` has no property.
    throw new Error(TWO_REACTS, { cause })
  }
}

const TWO_REACTS =
  '@insforge-realtime/client/react uses another copy of React than this page, as it does when its folder is linked: set ' +
  "resolve: { dedupe: ['react', 'react-dom'] } in Vite's config, or install it with npm install --install-links " +
  '(docs/sdk-javascript.md, Two copies of React)'

/**
 * The client that the provider above has given.
 *
 * @throws when there is no provider.
 */
export function useRealtimeClient(): RealtimeClient {
  const client = useClientContext()
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
