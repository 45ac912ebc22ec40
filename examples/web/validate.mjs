// node validate.mjs BUNDLE PROOF [--json]: validates a bundle by the proof that eptx validate --record wrote
import { readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { parseArgs } from "node:util";
import ort from "onnxruntime-node";
import { BAD_INPUT, FAILED, Failure, USAGE, oneLine } from "./public/proof/failure.js";
import { reportText } from "./public/proof/table.js";
import { validate } from "./public/proof/validate.js";

const INTERNAL = 1;

function settings() {
  try {
    const { values, positionals } = parseArgs({ options: { json: { type: "boolean" } }, allowPositionals: true });
    if (positionals.length === 2) return { bundle: positionals[0], proof: positionals[1], json: values.json };
  } catch {
    // an option that is not known
  }
  throw new Failure("usage: node validate.mjs BUNDLE PROOF [--json]", USAGE);
}

async function bytesOf(path) {
  try {
    return new Uint8Array(await readFile(path));
  } catch (error) {
    throw new Failure(`${basename(path)}: ${error.code === "ENOENT" ? "there is no such file" : oneLine(error)}`, BAD_INPUT);
  }
}

async function main() {
  const { bundle, proof, json } = settings();
  const read = (name) => bytesOf(join(bundle, name));
  const file = { name: basename(proof), bytes: await bytesOf(proof) };
  const report = await validate({ ort, provider: "cpu", read, proof: file });
  console.log(json ? JSON.stringify(report, null, 1) : reportText(report));
  if (!report.passed) throw new Failure(report.reason, FAILED);
}

main().catch((error) => {
  console.error(error instanceof Failure ? `error: ${error.message}` : `error: internal error: ${oneLine(error)}`);
  process.exitCode = error instanceof Failure ? error.code : INTERNAL;
});
