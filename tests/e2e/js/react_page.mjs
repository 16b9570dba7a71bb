// Builds a copy of examples/react-orders with Vite, without its `resolve.dedupe`. Arguments: the page's folder, which has a
// node_modules, where to write to, and Vite's mode. Its exit status is not 0 if it cannot be built.
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

const [root, outDir, mode] = process.argv.slice(2)
process.env.NODE_ENV = mode
const { resolve } = createRequire(new URL('../../../examples/react-orders/package.json', import.meta.url))
const { build } = await import(pathToFileURL(resolve('vite')).href)
const { default: react } = await import(pathToFileURL(resolve('@vitejs/plugin-react')).href)

await build({ root, mode, configFile: false, plugins: [react()], base: './', logLevel: 'warn', build: { outDir } })
