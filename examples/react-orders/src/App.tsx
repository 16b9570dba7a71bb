import { usePresence, useRealtime } from '@insforge-realtime/client/react'
import { useState } from 'react'
import { OrderStatus } from './OrderStatus'

/** Some orders, of which one is open at a time. */
export function App({ orderIds }: { orderIds: string[] }) {
  const [open, setOpen] = useState<string | undefined>(orderIds[0])
  if (orderIds.length === 0) return <Usage />
  return (
    <main>
      <h1>Orders</h1>
      <nav>
        {orderIds.map((id) => (
          <button key={id} type="button" aria-pressed={id === open} onClick={() => setOpen(id)}>
            {id.slice(-4)}
          </button>
        ))}
        <button type="button" onClick={() => setOpen(undefined)}>
          none
        </button>
      </nav>
      {open && <Order key={open} orderId={open} />}
    </main>
  )
}

/** One order. It shares its channel's subscription with the `OrderStatus` in it. */
function Order({ orderId }: { orderId: string }) {
  const [changes, setChanges] = useState<{ id: string; text: string }[]>([])
  const { status, error, retry } = useRealtime(`order:${orderId}`, {
    UPDATE_order: ({ meta, total }) =>
      setChanges((before) => [
        { id: meta.messageId, text: `${meta.timestamp} · ${total}` },
        ...before
      ])
  })
  const watchers = usePresence(`order:${orderId}`)
  return (
    <article>
      <h2>{orderId}</h2>
      <p className={`connection ${status}`}>
        {status}
        {error && `: ${error.message}`}
        {watchers.length > 0 && ` · ${watchers.length} watching`}{' '}
        {(status === 'error' || status === 'disconnected') && (
          <button type="button" onClick={retry}>
            Try again
          </button>
        )}
      </p>
      <OrderStatus orderId={orderId} />
      <ol>
        {changes.map(({ id, text }) => (
          <li key={id}>{text}</li>
        ))}
      </ol>
    </article>
  )
}

function Usage() {
  return (
    <main>
      <h1>Orders</h1>
      <p>
        Start a server with <code>make dev</code>, and open this page with the token and the orders
        that it prints: <code>#token=…&amp;orders=…,…</code>
      </p>
    </main>
  )
}
