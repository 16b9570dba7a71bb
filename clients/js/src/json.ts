// What JSON cannot represent, and JSON.stringify silently changes or drops: found before it is sent.

/** Half a surrogate pair. With the flag `u`, whole pairs do not match. */
const HALF = /[\ud800-\udfff]/u

/**
 * Find out why a value would not arrive intact, and where in it: NaN, an infinity, half a surrogate pair, a BigInt, a cycle.
 *
 * Members that are `undefined`, functions or symbols are left out, as everywhere in JavaScript, and dates become text.
 *
 * @returns the reason, or `null` when there is none.
 */
export function unsayable(data: object): string | null {
  const path: Array<[key: string, value: unknown]> = []
  // `this` is the object that the value is in.
  function look(this: unknown, key: string, value: unknown): unknown {
    while (path.length > 0 && path.at(-1)?.[1] !== this) path.pop()
    path.push([key, value])
    const fault = faultOf(value) ?? (HALF.test(key) ? 'a key with half a surrogate pair' : null)
    if (fault === null) return value
    const keys = path.slice(1).map(([it]) => it.replace(/[\ud800-\udfff]/gu, '\ufffd'))
    throw new Fault(`${keys.join('.')}: ${fault} cannot be represented in JSON`)
  }
  try {
    JSON.stringify(data, look)
    return null
  } catch (error) {
    if (error instanceof Fault) return error.message
    const [reason] = String((error as Error).message).split('\n')
    return `payload: cannot be represented in JSON: ${reason}`
  }
}

class Fault extends Error {}

function faultOf(given: unknown): string | null {
  const boxed = given instanceof Number || given instanceof String
  const value = boxed ? given.valueOf() : given
  if (typeof value === 'number' && !Number.isFinite(value)) return String(value)
  if (typeof value === 'bigint') return 'a BigInt'
  return typeof value === 'string' && HALF.test(value) ? 'half a surrogate pair' : null
}
