// The public names of `@insforge-realtime/client/react`.

export type { ChannelStatus } from '../channel'
export {
  type ChannelName,
  type Handlers,
  type Publish,
  type UseRealtime,
  usePresence,
  useRealtime
} from './hooks'
export { RealtimeProvider, type RealtimeProviderProps, useRealtimeClient } from './provider'
