import { createClient } from '@insforge-realtime/client'
import { RealtimeProvider } from '@insforge-realtime/client/react'
import { StrictMode } from 'react'
import { createRoot } from 'react-dom/client'
import { App } from './App'
import './style.css'

// The server and the user come from the page's address: `#token=…&orders=…,…&url=…&api=…`. What follows the `#` is never sent
// to a server. A real page has its users log in, and gives `createClient` a function that returns their token.
const settings = new URLSearchParams(location.hash.slice(1))

const client = createClient({
  baseUrl: settings.get('url') ?? 'http://127.0.0.1:7130',
  accessToken: settings.get('token')
})

createRoot(document.getElementById('root')!).render(
  <StrictMode>
    <RealtimeProvider client={client}>
      <App orderIds={settings.get('orders')?.split(',') ?? []} />
    </RealtimeProvider>
  </StrictMode>
)
