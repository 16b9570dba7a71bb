export interface Order {
  id: string
  status: string
  total: number
}

const api = new URLSearchParams(location.hash.slice(1)).get('api')

/** Return the order as the database has it. The demo has no API: give the page one, `#api=…`, with `GET /orders/{id}`. */
export async function readOrder(id: string): Promise<Partial<Order>> {
  if (!api) return {}
  const answer = await fetch(`${api}/orders/${id}`)
  if (!answer.ok) throw new Error(`The order cannot be read: HTTP status ${answer.status}`)
  return answer.json()
}
