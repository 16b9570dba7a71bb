// Who listens to what. A listener that throws does not disturb the others.

type Listener = (payload: never) => void

interface Entry {
  readonly listener: Listener
  readonly once: boolean
}

/** Listeners by event name. */
export class Listeners {
  readonly #byEvent = new Map<string, Set<Entry>>()

  /** Add a listener. `on` adds the same function at most once; each `once` is one more call. */
  add(event: string, listener: Listener, once = false): void {
    const entries = this.#byEvent.get(event) ?? new Set<Entry>()
    if (!once && [...entries].some((entry) => entry.listener === listener && !entry.once)) return
    this.#byEvent.set(event, entries.add({ listener, once }))
  }

  remove(event: string, listener: Listener): void {
    for (const entry of this.#byEvent.get(event) ?? []) {
      if (entry.listener === listener) this.#delete(event, entry)
    }
  }

  /** Call the current listeners: not those that are added meanwhile, nor those that are removed before their turn. */
  notify(event: string, payload: unknown): void {
    for (const entry of [...(this.#byEvent.get(event) ?? [])]) {
      if (!this.#byEvent.get(event)?.has(entry)) continue
      if (entry.once) this.#delete(event, entry)
      guarded(event, entry.listener, payload)
    }
  }

  #delete(event: string, entry: Entry): void {
    const entries = this.#byEvent.get(event)
    entries?.delete(entry)
    if (entries?.size === 0) this.#byEvent.delete(event)
  }
}

/** Call an application's function; what it throws goes to the console. */
export function guarded(event: string, listener: Listener, payload: unknown): void {
  try {
    listener(payload as never)
  } catch (error) {
    console.error(`A listener of "${event}" has thrown:`, error)
  }
}
