// What each entry costs a page: bundled and minified as an application's bundler would, then gzipped. What is over its limit, and
// what is not shaken off a page that uses nothing of it, fails.
import { gzipSync } from 'node:zlib'
import { build } from 'esbuild'

const KB = 1024
const all = (file) => `export * from './dist/${file}.js'`
const unused =
  "import { createClient } from './dist/index.js'; import { useRealtime } from './dist/react.js'"
const entries = [
  ['@insforge-realtime/client', all('index'), ['socket.io-client'], 5.5 * KB],
  ['@insforge-realtime/client/react', all('react'), ['react'], KB],
  ['… with socket.io-client, in one file', all('index'), [], 20 * KB],
  ['imported and not used', unused, ['socket.io-client', 'react'], 100]
]

for (const [name, contents, external, limit] of entries) {
  const { outputFiles } = await build({
    stdin: { contents, resolveDir: '.' },
    bundle: true,
    minify: true,
    format: 'esm',
    platform: 'browser',
    write: false,
    external,
    logOverride: { 'import-is-undefined': 'silent', 'ignored-bare-import': 'silent' }
  })
  const size = gzipSync(outputFiles[0].contents).length
  process.stdout.write(`${name}: ${size} bytes gzipped (limit ${limit})\n`)
  if (size > limit) process.exitCode = 1
}
