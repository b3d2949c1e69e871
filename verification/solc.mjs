#!/usr/bin/env node
// Stands in for the compiler's native program, which forge would download: answers `--version` and `--standard-json`
// with the pinned compiler from npm.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const solc = createRequire(import.meta.url)("solc");
if (process.argv.includes("--version")) {
  const version = solc.version().replace("Emscripten.clang", "Linux.g++");
  process.stdout.write(`solc, the solidity compiler commandline interface\nVersion: ${version}\n`);
} else if (process.argv.includes("--standard-json")) {
  process.stdout.write(solc.compile(readFileSync(0, "utf8")));
} else {
  process.stderr.write(`solc.mjs answers --version and --standard-json; got ${process.argv.slice(2).join(" ")}\n`);
  process.exitCode = 1;
}
