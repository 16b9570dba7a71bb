// The words of the public interface. Nothing here exists at run time.

/** `'connecting'` also while a lost connection is being made again. */
export type ConnectionState = 'disconnected' | 'connecting' | 'connected'

/** A token, or a function that is asked for one at every handshake, so that it is always fresh. */
export type AccessToken =
  | string
  | null
  | (() => string | null | undefined | Promise<string | null | undefined>)

/**
 * What a refusal says about its cause.
 *
 * From the server: `UNAUTHORIZED` (a policy, or the check of the token, said no), `NOT_SUBSCRIBED`, `INVALID_REQUEST`,
 * `PAYLOAD_TOO_LARGE`, `RATE_LIMITED`, `TOKEN_EXPIRED`, `UNAVAILABLE` (try again), `INTERNAL_ERROR`.
 * From this client: `CONNECTION_FAILED`, `NOT_CONNECTED`, `DISCONNECTED`, `SUBSCRIBE_TIMEOUT`, `SUBSCRIPTION_CANCELLED`,
 * `PUBLISH_TIMEOUT`.
 */
export type ErrorCode =
  | 'UNAUTHORIZED'
  | 'NOT_SUBSCRIBED'
  | 'INTERNAL_ERROR'
  | 'INVALID_REQUEST'
  | 'PAYLOAD_TOO_LARGE'
  | 'RATE_LIMITED'
  | 'TOKEN_EXPIRED'
  | 'UNAVAILABLE'
  | 'CONNECTION_FAILED'
  | 'NOT_CONNECTED'
  | 'DISCONNECTED'
  | 'SUBSCRIBE_TIMEOUT'
  | 'SUBSCRIPTION_CANCELLED'
  | 'PUBLISH_TIMEOUT'
  | (string & {})

/** Why something was refused. */
export interface RealtimeErrorDetail {
  /** For programs. */
  code: ErrorCode
  /** For people. */
  message: string
}

/** What listeners of `error` get. */
export interface RealtimeErrorPayload extends RealtimeErrorDetail {
  /** The channel that it is about, if it is about one. */
  channel?: string
}

/** What listeners of `connect_error` get, and what `connect()` rejects with. */
export interface ConnectError extends Error {
  /** The server's code if it refused (`UNAUTHORIZED`, `UNAVAILABLE`, …), else `CONNECTION_FAILED`; its `cause` is behind that. */
  data: { code: ErrorCode }
}

/** Somebody who is subscribed to a channel. One user with many connections is one member. */
export interface PresenceMember {
  type: 'user' | 'anonymous'
  /** The user's id, or the connection's for anonymous members. */
  presenceId: string
  /** ISO 8601. */
  joinedAt: string
}

/** What the server writes into each message; nobody else can. */
export interface MessageMeta {
  /** The channel's name. */
  channel?: string
  /** A UUID: the row's id in `realtime.messages`. */
  messageId: string
  /** `'system'`: a trigger or other SQL. `'user'`: a client. */
  senderType: 'system' | 'user'
  /** The user's id, for messages of users. */
  senderId?: string
  /** When the message was made: ISO 8601, UTC, for `new Date(…)`. */
  timestamp: string
}

/** A message whose payload's type is not told: any field may be read. */
export interface SocketMessage {
  meta: MessageMeta
  // biome-ignore lint/suspicious/noExplicitAny: the payload is the application's, and it has not told us its type.
  [field: string]: any
}

/** What listeners of `presence:join` and `presence:leave` get. */
export interface PresenceEvent {
  member: PresenceMember
  meta: MessageMeta
}

/** How a `subscribe` went. */
export type SubscribeResponse =
  | { ok: true; channel: string; presence: { members: PresenceMember[] }; error?: undefined }
  | { ok: false; channel: string; error: RealtimeErrorDetail; presence?: undefined }

/** How a `publish` with `{ ack: true }` went. */
export type PublishResponse =
  | { ok: true; messageId: string; error?: undefined }
  | { ok: false; channel?: string; error: RealtimeErrorDetail; messageId?: undefined }

/** Options of `subscribe`. */
export interface SubscribeOptions {
  /**
   * Called each time the server has confirmed this subscription, the first time and after each reconnect, before any message
   * of the channel is handed on: the moment to read the state from the database. Until `unsubscribe`, `disconnect` or a refusal.
   * At once, where the channel is subscribed to already.
   */
  onSubscribed?: (event: SubscribedEvent) => void
}

/** What listeners of `realtime:subscribed` get. */
export interface SubscribedEvent {
  channel: string
  /** Whether it was subscribed to before, and messages may have been missed. */
  renewed: boolean
}

/** Options of `publish`. */
export interface PublishOptions {
  /** Wait until the server says that the message is stored, or why it is not. */
  ack?: boolean
}

/** Names of events, and the types of their payloads: `createClient<{ UPDATE_order: Order }>(…)`. */
export type EventMap = object

/** The events of the client itself. */
export interface ReservedEvents {
  connect: undefined
  connect_error: ConnectError
  disconnect: string
  error: RealtimeErrorPayload
  'realtime:subscribed': SubscribedEvent
  'presence:join': PresenceEvent
  'presence:leave': PresenceEvent
}

/** What a listener of each known event gets: an event's payload comes with the server's `meta`. */
export type KnownEvents<Events extends EventMap> = ReservedEvents & {
  [Name in Exclude<keyof Events, keyof ReservedEvents>]: Events[Name] & { meta: MessageMeta }
}

/** Takes a listener away again. */
export type RemoveListener = () => void

/** A function that is called with an event's payload. */
export type EventCallback<T = SocketMessage> = (payload: T) => void
