// Chromium as a puppet: one command a line on standard input, one JSON object a line on standard output, like puppet.mjs.
//   in   {id, client, call, args}     `client` is a page of its own (own cookies, own storage), `call` one of the verbs below
//   out  {id, result} | {id, error}
//   out  {client, event, data}        `problem`: the page threw, or wrote an error to its console
// The argument is Chromium's path. It ends with its standard input, so it never outlives the test.
import { createInterface } from 'node:readline'
import { chromium } from 'playwright-core'

const browser = await chromium.launch({
  executablePath: process.argv[2],
  headless: true,
  args: [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1'
  ]
})
const pages = new Map()
const print = (object) => process.stdout.write(JSON.stringify(object) + '\n')

const verbs = {
  async create(_, client, url) {
    const context = await browser.newContext({ viewport: { width: 900, height: 600 } })
    const page = await context.newPage()
    page.on('pageerror', (error) => print({ client, event: 'problem', data: error.message }))
    page.on('console', (message) => {
      if (message.type() === 'error') print({ client, event: 'problem', data: message.text() })
    })
    pages.set(client, page)
    await page.goto(url)
  },
  goto: async (page, _, url) => void (await page.goto(url)),
  text: (page, _, selector) => page.locator(selector).allInnerTexts(),
  // Until some element that fits says this.
  see: (page, _, selector, text) => page.locator(selector, { hasText: text }).first().waitFor({ timeout: 20_000 }),
  click: (page, _, selector) => page.locator(selector).click(),
  async say(page, _, selector, text) {
    await page.locator(selector).fill(text)
    await page.locator(selector).press('Enter')
  },
  screenshot: async (page, _, path) => void (await page.screenshot({ path })),
  close: (page) => page.context().close()
}

const lines = createInterface({ input: process.stdin })
lines.on('close', () => browser.close().finally(() => process.exit(0)))
lines.on('line', async (line) => {
  const { id, client, call, args } = JSON.parse(line)
  try {
    print({ id, result: (await verbs[call](pages.get(client), client, ...args)) ?? null })
  } catch (error) {
    print({ id, error: { message: error.message } })
  }
})
