// The genuine MAM clients over the network, unchanged: publish a stream of three messages and fetch it.
// Usage: node network.mjs FOLDER URL; prints one JSON object.
import { createRequire } from 'node:module'

const require = createRequire(`${process.argv[2]}/`)
const url = process.argv[3]
const rust = require('@iota/mam')
const typescript = require('@iota/mam.js')
const { asciiToTrytes, trytesToAscii } = require('@iota/converter')

async function runRust (mode, sideKey) {
  let state = rust.changeMode(rust.init({ provider: url }, undefined, 1), mode, sideKey)
  let root
  for (const text of ['one', 'two', 'three']) {
    const made = rust.create(state, asciiToTrytes(JSON.stringify({ text })))
    state = made.state
    root ??= made.root
    await rust.attach(made.payload, made.address, 3, 9, 'LEARNAE')
  }
  const fetched = await rust.fetch(root, mode, sideKey)
  return (fetched.messages ?? []).map(trytes => JSON.parse(trytesToAscii(trytes)).text)
}

async function runTypescript (mode, sideKey) {
  const channel = typescript.createChannel('LEARNAE'.padEnd(81, mode[0].toUpperCase()), 1, mode, sideKey ?? undefined)
  let root
  for (const text of ['one', 'two', 'three']) {
    const made = typescript.createMessage(channel, typescript.TrytesHelper.fromAscii(text))
    root ??= made.root
    await typescript.mamAttach(url, made, 'LEARNAE')
  }
  const fetched = await typescript.mamFetchAll(url, root, mode, sideKey?.padEnd(81, '9'), 10)
  return fetched.map(message => typescript.TrytesHelper.toAscii(message.message))
}

const answer = {}
for (const [mode, sideKey] of [['public', null], ['private', null], ['restricted', 'SECRET']]) {
  answer[`rust ${mode}`] = await runRust(mode, sideKey)
  answer[`typescript ${mode}`] = await runTypescript(mode, sideKey)
}
process.stdout.write(JSON.stringify(answer) + '\n')
