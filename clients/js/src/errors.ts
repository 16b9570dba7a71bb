// The one shape of this package's errors: an Error with `data.code`, the shape in which socket.io-client delivers the server's
// refusals.

import type { ConnectError, ErrorCode } from './types'

/** Make an error of this client's own. */
export function failure(code: ErrorCode, message: string, cause?: unknown): ConnectError {
  return Object.assign(new Error(message, { cause }), { data: { code } })
}

/** Return why a handshake failed: the server's refusal as it is, anything else as CONNECTION_FAILED. */
export function asConnectError(error: unknown): ConnectError {
  const isError = error instanceof Error
  if (isError && codeOf((error as Partial<ConnectError>).data)) return error as ConnectError
  return failure('CONNECTION_FAILED', isError ? error.message : String(error), error)
}

/** Return the `code` of an error object that came over the wire. */
export function codeOf(data: unknown): string | undefined {
  const code = (data as { code?: unknown } | null | undefined)?.code
  return typeof code === 'string' ? code : undefined
}
