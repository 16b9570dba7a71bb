// Runs the ```js blocks of a Markdown file, in order, as one program. Arguments: the file, the server's URL. The first block is the program's beginning; each other has a scope of its own. Each thing that a block prints is printed
// as a line of JSON, and so is the number of each block that is done. It lives until its standard input ends.
import { readFileSync } from 'node:fs'
import { createClient } from '../../../clients/js/dist/index.js'

const [file, url] = process.argv.slice(2)
const IMPORT = "import { createClient } from '@insforge-realtime/client'"
const blocks = [...readFileSync(file, 'utf8').matchAll(/^```js\n(.*?)^```$/gms)].map(([, code]) =>
  code.replaceAll('http://127.0.0.1:7130', url)
)
if (!blocks[0]?.startsWith(IMPORT)) throw new Error(`the first block must begin with: ${IMPORT}`)

const print = (...words) => process.stdout.write(JSON.stringify(words.length > 1 ? words.join(' ') : words[0]) + '\n')
// What a reader has, and what the blocks therefore may use.
const given = { createClient, console: { log: print, error: print }, print }
const program = blocks
  .map((code, number) => `${number ? `{ ${code} }` : code.replace(IMPORT, '')}\nprint(${number})\n`)
  .join('')

process.stdin.resume().on('end', () => process.exit(0))
const AsyncFunction = (async () => {}).constructor
await new AsyncFunction(...Object.keys(given), program)(...Object.values(given))
