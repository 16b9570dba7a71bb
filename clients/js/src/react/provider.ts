// The client that the hooks of a tree use.

import { createContext, createElement, type ReactElement, type ReactNode, useContext } from 'react'
import { CHANNELS, type Channels } from '../channels'
import type { RealtimeClient } from '../client'

const ClientContext = createContext<RealtimeClient | null>(null)

/** What `RealtimeProvider` takes. */
export interface RealtimeProviderProps {
  /** Made by `createClient`, once, outside components. */
  // biome-ignore lint/suspicious/noExplicitAny: a client with any events.
  client: RealtimeClient<any>
  children?: ReactNode
}

/**
 * Give a client to all the hooks below. Where the page has two copies of React, no hook can work: render that message in
 * place of the children, and log it to the console.
 */
export function RealtimeProvider({ client, children }: RealtimeProviderProps): ReactElement {
  try {
    // biome-ignore lint/correctness/useHookAtTopLevel: it is always called; the catch is for React's having no dispatcher.
    useClientContext()
  } catch (error) {
    console.error(error)
    return String(error) as unknown as ReactElement // text: an element of another version of React would not be one
  }
  return createElement(ClientContext.Provider, { value: client }, children)
}

function useClientContext(): RealtimeClient | null {
  try {
    // biome-ignore lint/correctness/useHookAtTopLevel: the same.
    return useContext(ClientContext)
  } catch (cause) {
    // A copy of React without a renderer has no dispatcher for its hooks: they read a property of `null`.
    throw new Error(TWO_REACTS, { cause })
  }
}

const TWO_REACTS =
  '@insforge-realtime/client/react uses another copy of React than this page, as it does when its folder is linked: set ' +
  "resolve: { dedupe: ['react', 'react-dom'] } in Vite's config, or install it with npm install --install-links " +
  '(docs/sdk-javascript.md, Two copies of React)'

/**
 * Return the client of the provider above.
 *
 * @throws when there is no provider.
 */
export function useRealtimeClient(): RealtimeClient {
  const client = useClientContext()
  if (client) return client
  throw new Error('This component needs a <RealtimeProvider client={…}> above it')
}

/** Return the channels of a client of this package. */
export function channelsOf(client: RealtimeClient): Channels {
  const channels = (client as unknown as Record<symbol, Channels | undefined>)[CHANNELS]
  if (channels) return channels
  throw new Error(
    '<RealtimeProvider> needs a client of createClient from @insforge-realtime/client'
  )
}
