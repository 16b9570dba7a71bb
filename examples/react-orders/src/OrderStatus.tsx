import { useRealtime } from '@insforge-realtime/client/react'
import { useRef, useState } from 'react'
import { type Order, readOrder } from './api'

export function OrderStatus({ orderId }: { orderId: string }) {
  const [status, setStatus] = useState('')
  const reading = useRef(Promise.resolve())

  useRealtime<{ UPDATE_order: Order }>(`order:${orderId}`, {
    // The first time, and after each reconnect: earlier changes did not arrive as messages.
    'realtime:subscribed': () => {
      reading.current = readOrder(orderId).then(
        (order) => setStatus((before) => order.status ?? before),
        (error) => setStatus(String(error))
      )
    },
    // A message that arrives during the read may be newer: it waits, and has the last word.
    UPDATE_order: async (order) => {
      await reading.current
      setStatus(order.status)
    }
  })

  return <div>Status: {status}</div>
}
