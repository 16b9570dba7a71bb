// The public names of `@insforge-realtime/client`.

export { type ClientOptions, createClient, type RealtimeClient } from './client'
export type { TransportOptions } from './link'
export type { Realtime } from './realtime'
export type * from './types'
