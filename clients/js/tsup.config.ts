import { defineConfig } from 'tsup'

export default defineConfig([
  {
    entry: { index: 'src/index.ts', react: 'src/react/index.ts' },
    format: ['esm', 'cjs'],
    target: 'es2022',
    dts: true,
    clean: true,
    treeshake: true,
    external: ['react', 'socket.io-client']
  },
  {
    // For pages without a bundler: everything in one file, `InsForgeRealtime.createClient`.
    entry: { 'insforge-realtime': 'src/index.ts' },
    format: ['iife'],
    globalName: 'InsForgeRealtime',
    target: 'es2022',
    platform: 'browser',
    minify: true,
    noExternal: ['socket.io-client']
  }
])
