import { useRealtime } from '@insforge-realtime/client/react'
import { useState } from 'react'

export function OrderStatus({ orderId }: { orderId: string }) {
  const [status, setStatus] = useState('')

  useRealtime(`order:${orderId}`, {
    UPDATE_order: (payload) => setStatus(payload.status)
  })

  return <div>Status: {status}</div>
}
