// What went wrong, in the one shape in which this package tells it: an Error with `data.code`, as socket.io-client gives the
// refusals of the server.

import type { ConnectError, ErrorCode } from './types'

/** An error of this client's own. */
export function failure(code: ErrorCode, message: string, cause?: unknown): ConnectError {
  return Object.assign(new Error(message, { cause }), { data: { code } })
}

/** Why a handshake failed: the server's refusal as it is, anything else as CONNECTION_FAILED. */
export function asConnectError(error: unknown): ConnectError {
  const isError = error instanceof Error
  if (isError && codeOf((error as Partial<ConnectError>).data)) return error as ConnectError
  return failure('CONNECTION_FAILED', isError ? error.message : String(error), error)
}

/** The `code` of an error object that came over the wire. */
export function codeOf(data: unknown): string | undefined {
  const code = (data as { code?: unknown } | null | undefined)?.code
  return typeof code === 'string' ? code : undefined
}
