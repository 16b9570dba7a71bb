// What each entry costs a page: bundled and minified as an application's bundler would, then gzipped.
import { gzipSync } from 'node:zlib'
import { build } from 'esbuild'

const KB = 1024
const entries = [
  ['@insforge-realtime/client', 'dist/index.js', ['socket.io-client'], 5 * KB],
  ['@insforge-realtime/client/react', 'dist/react.js', ['react'], KB],
  ['… with socket.io-client, in one file', 'dist/index.js', [], 20 * KB]
]

for (const [name, entry, external, limit] of entries) {
  const { outputFiles } = await build({
    entryPoints: [entry],
    bundle: true,
    minify: true,
    format: 'esm',
    platform: 'browser',
    write: false,
    external
  })
  const size = gzipSync(outputFiles[0].contents).length
  process.stdout.write(`${name}: ${size} bytes gzipped (limit ${limit})\n`)
  if (size > limit) process.exitCode = 1
}
