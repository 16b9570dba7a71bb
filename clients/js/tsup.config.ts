import { defineConfig, type Options } from 'tsup'

const library: Options = { format: ['esm', 'cjs'], target: 'es2022' }
const index = 'src/index.ts'
const react = 'src/react/index.ts'

export default defineConfig([
  { ...library, entry: { index }, treeshake: true },
  // Says to React's server components that it is for the browser.
  { ...library, entry: { react }, banner: { js: "'use client'" } },
  // Together, so that a client of the one is a client to the other.
  { ...library, entry: { index, react }, dts: { only: true } },
  {
    // For pages without a bundler: everything in one file, as `InsForgeRealtime.createClient`.
    entry: { 'insforge-realtime': index },
    format: ['iife'],
    globalName: 'InsForgeRealtime',
    target: 'es2022',
    platform: 'browser',
    minify: true,
    noExternal: ['socket.io-client']
  }
])
