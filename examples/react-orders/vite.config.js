import react from '@vitejs/plugin-react'
import { defineConfig } from 'vite'

export default defineConfig({
  plugins: [react()],
  base: './',
  // The client is a link to a folder with a React of its own (for its tests); a page must have only one React.
  resolve: { dedupe: ['react', 'react-dom'] }
})
