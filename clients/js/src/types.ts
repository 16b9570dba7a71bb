// The types of the public interface. Nothing here exists at run time.

/** `'connecting'` also while reconnecting. */
export type ConnectionState = 'disconnected' | 'connecting' | 'connected'

/** A token, or a function that is called for one at every handshake, so that it is always fresh. */
export type AccessToken =
  | string
  | null
  | (() => string | null | undefined | Promise<string | null | undefined>)

/**
 * The cause of a refusal.
 *
 * From the server: `UNAUTHORIZED` (by a policy, or since the token is invalid), `NOT_SUBSCRIBED`, `INVALID_REQUEST`,
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
  /** The channel concerned, if any. */
  channel?: string
}

/** What listeners of `connect_error` get, and what `connect()` rejects with. */
export interface ConnectError extends Error {
  /** The server's code if it refused (`UNAUTHORIZED`, `UNAVAILABLE`, …), else `CONNECTION_FAILED`, with a `cause`. */
  data: { code: ErrorCode }
}

/** A subscriber of a channel. One user with many connections is one member. */
export interface PresenceMember {
  type: 'user' | 'anonymous'
  /** The user's id, or the connection's for anonymous members. */
  presenceId: string
  /** ISO 8601. */
  joinedAt: string
}

/** What the server, and nobody else, writes into each message. */
export interface MessageMeta {
  /** The channel's name. */
  channel?: string
  /** A UUID: the row's id in `realtime.messages`. */
  messageId: string
  /** `'system'`: a trigger or other SQL. `'user'`: a client. */
  senderType: 'system' | 'user'
  /** The user's id, for messages of users. */
  senderId?: string
  /** When the message was created: ISO 8601, UTC, for `new Date(…)`. */
  timestamp: string
}

/** A message whose payload has no declared type: any field may be read. */
export interface SocketMessage {
  meta: MessageMeta
  // biome-ignore lint/suspicious/noExplicitAny: the payload is the application's, of a type that it has not declared.
  [field: string]: any
}

/** What listeners of `presence:join` and `presence:leave` get. */
export interface PresenceEvent {
  member: PresenceMember
  meta: MessageMeta
}

/** The answer to `subscribe`. */
export type SubscribeResponse =
  | { ok: true; channel: string; presence: { members: PresenceMember[] }; error?: undefined }
  | { ok: false; channel: string; error: RealtimeErrorDetail; presence?: undefined }

/** The answer to `publish` with `{ ack: true }`. */
export type PublishResponse =
  | { ok: true; messageId: string; error?: undefined }
  | { ok: false; channel?: string; error: RealtimeErrorDetail; messageId?: undefined }

/** Options of `subscribe`. */
export interface SubscribeOptions {
  /**
   * Called each time the server confirms this subscription, the first time and after each reconnect, before any message of the
   * channel is delivered: the moment to read the state from the database. Until `unsubscribe`, `disconnect` or a refusal.
   * At once, where the channel is already subscribed to.
   */
  onSubscribed?: (event: SubscribedEvent) => void
}

/** What listeners of `realtime:subscribed` get. */
export interface SubscribedEvent {
  channel: string
  /** Whether it had been confirmed before, so that messages may have been missed. */
  renewed: boolean
}

/** Options of `publish`. */
export interface PublishOptions {
  /** Wait until the server has stored the message, or refused it. */
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

/** What a listener of each known event gets: the event's payload, with the server's `meta`. */
export type KnownEvents<Events extends EventMap> = ReservedEvents & {
  [Name in Exclude<keyof Events, keyof ReservedEvents>]: Events[Name] & { meta: MessageMeta }
}

/** Removes a listener. */
export type RemoveListener = () => void

/** A function that is called with an event's payload. */
export type EventCallback<T = SocketMessage> = (payload: T) => void
