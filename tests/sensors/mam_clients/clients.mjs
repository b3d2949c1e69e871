// The two genuine MAM clients as one filter: JSON lines in, JSON lines out.
// {client: "rust" | "typescript", work: "create" | "parse", ...} as `learnae mam` has them; the answer has the same names.
// Usage: node clients.mjs FOLDER, where FOLDER is where npm installed them.
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'

const require = createRequire(`${process.argv[2]}/`)
const rust = require('@iota/mam')
const typescript = require('@iota/mam.js')

const works = {
  rust: {
    create (asked) {
      const state = rust.init('', asked.seed, asked.security)
      const sideKey = asked.mode === 'restricted' ? asked.side_key : null
      const { start, count, index } = asked
      Object.assign(rust.changeMode(state, asked.mode, sideKey).channel, { start, count, index, next_count: asked.next_count })
      const made = rust.create(state, asked.message)
      return { payload: made.payload, root: made.root, next_root: made.state.channel.next_root, address: made.address }
    },
    parse (asked) {
      const read = rust.decode(asked.payload, asked.side_key, asked.root)
      return { message: read.payload, next_root: read.next_root }
    }
  },
  typescript: {
    create (asked) {
      const channel = typescript.createChannel(asked.seed, asked.security, asked.mode, asked.side_key ?? undefined)
      const { start, count, index } = asked
      Object.assign(channel, { start, count, index, nextCount: asked.next_count })
      const made = typescript.createMessage(channel, asked.message)
      return { payload: made.payload, root: made.root, next_root: channel.nextRoot, address: made.address }
    },
    parse (asked) {
      const read = typescript.parseMessage(asked.payload, asked.root, asked.side_key?.padEnd(81, '9'))
      return { message: read.message, next_root: read.nextRoot }
    }
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line)
  let answer
  try {
    answer = works[asked.client][asked.work](asked)
  } catch (error) {
    answer = { error: String(error?.message ?? error) }
  }
  process.stdout.write(JSON.stringify(answer) + '\n')
}
