// Compiles the contracts that are named on standard input as Solidity standard JSON and prints the answer.
// Reading everything from there, it needs no path and no network. Used by learnae.contracts.build.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const require = createRequire(pathToFileURL(process.cwd() + "/"));
const solc = require("solc");
process.stdout.write(JSON.stringify({ version: solc.version(), answer: JSON.parse(solc.compile(readFileSync(0, "utf8"))) }));
