// Compiles the ```ts and ```tsx blocks of a Markdown file with the strictest TypeScript, each as a module, and makes a page of the
// tsx block, which exports `App`. Arguments: the file, a folder to write into, and {url, token} in JSON: the server, and what a
// login would have left in the page's storage. Prints nothing; its exit status is not 0 if a block does not compile.
import { execFileSync } from 'node:child_process'
import { readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const [file, folder, settings] = process.argv.slice(2)
const client = fileURLToPath(new URL('../../../clients/js', import.meta.url))
const { build } = createRequire(join(client, 'package.json'))('esbuild')
const tsc = join(dirname(createRequire(join(client, 'package.json')).resolve('typescript')), 'tsc.js')

const blocks = [...readFileSync(file, 'utf8').matchAll(/^```(tsx?)\n(.*?)^```$/gms)]
blocks.forEach(([, kind, code], number) => writeFileSync(join(folder, `snippet${number}.${kind}`), code))
const [page] = blocks.map(([, kind], number) => (kind === 'tsx' ? number : -1)).filter((number) => number >= 0)

symlinkSync(join(client, 'node_modules'), join(folder, 'node_modules'))
writeFileSync(join(folder, 'main.tsx'), `
  import { createRoot } from 'react-dom/client'
  import { App } from './snippet${page}'
  createRoot(document.getElementById('root')!).render(<App />)
`)
const paths = {
  '@insforge-realtime/client': [join(client, 'dist/index')],
  '@insforge-realtime/client/react': [join(client, 'dist/react')],
  '@insforge/sdk': [fileURLToPath(new URL('node_modules/@insforge/sdk/dist/index', import.meta.url))]
}
const compilerOptions = {
  ...{ target: 'ES2022', module: 'ESNext', moduleResolution: 'Bundler', jsx: 'react-jsx', strict: true, noEmit: true },
  ...{ noUnusedLocals: true, exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true, skipLibCheck: false, paths }
}
writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['*.ts', '*.tsx'] }))
execFileSync(process.execPath, [tsc, '--project', folder], { stdio: 'inherit' })

const { url, token } = JSON.parse(settings)
const main = join(folder, `snippet${page}.tsx`)
writeFileSync(main, readFileSync(main, 'utf8').replaceAll('http://127.0.0.1:7130', url))
const js = `localStorage.setItem('token', ${JSON.stringify(token)})`
await build({
  entryPoints: [join(folder, 'main.tsx')],
  outfile: join(folder, 'main.js'),
  bundle: true,
  banner: { js },
  define: { 'process.env.NODE_ENV': '"development"' },
  alias: { react: join(client, 'node_modules/react'), 'react-dom': join(client, 'node_modules/react-dom') }
})
writeFileSync(
  join(folder, 'index.html'),
  '<!doctype html><link rel="icon" href="data:," /><div id="root"></div><script src="main.js"></script>'
)
