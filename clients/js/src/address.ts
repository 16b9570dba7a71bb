// Where a server is, parsed from the address that a program gives.

/** Where a server is. */
export interface Server {
  /** Scheme, host and port. */
  origin: string
  /** Where it is mounted there, without a slash at the end; empty for the root. */
  path: string
}

/**
 * Scheme, host and port; then the path. `URL` will not do: React Native's own, before 0.80, accepts anything and has
 * neither a `protocol` nor an `origin`.
 */
const ADDRESS =
  /^\s*(https?:\/\/)(?:[^/?#@\s]*@)?((?:\[[\da-f:.]+\]|[^\s/?#@:[\]\\<>^|%]+)(?::\d{0,5})?)(\/[^?#\s]*)?(?:[?#]\S*)?\s*$/i

/**
 * Parse a server's address.
 *
 * @throws TypeError - when it is not an http(s) URL.
 */
export function serverAt(baseUrl: string): Server {
  const [, scheme, host, path = ''] = ADDRESS.exec(String(baseUrl)) ?? []
  if (scheme && host) {
    const origin = `${scheme}${host.replace(/:$/, '')}`.toLowerCase()
    return { origin, path: path.replace(/\/+$/, '') }
  }
  const given = JSON.stringify(baseUrl)
  throw new TypeError(`createClient: baseUrl must be an http(s) URL, not ${given}`)
}
