// How long to wait before the next attempt. One formula, for connections and for subscriptions.

/** The shortest and the longest wait, in milliseconds. */
export interface BackoffOptions {
  minDelay: number
  maxDelay: number
}

/**
 * Return the wait after so many failures: doubled each time up to the longest, less up to half of it at random, so that the
 * clients of a server that restarts do not all come back at the same moment.
 */
export function backoff(failures: number, { minDelay, maxDelay }: BackoffOptions): number {
  const longest = Math.min(maxDelay, minDelay * 2 ** Math.min(failures, 30))
  return longest * (0.5 + Math.random() / 2)
}
