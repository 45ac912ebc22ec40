// A bundle's files, each compared with what eptx.json says of it.
import { Failure, NOT_SUPPORTED } from "./failure.js";
import { OUTSIDE } from "./names.js";
import { sha256 } from "./sha256.js";

/** The stage whose progress is counted in bytes. */
export const LOADING = "loading the bundle";
const SCHEMA_VERSION = 1;

/**
 * What eptx.json says, if it is a bundle that is validated here.
 * @param {Uint8Array} bytes of eptx.json
 */
export function readManifest(bytes) {
  let manifest;
  try {
    manifest = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw new Failure("eptx.json: not valid JSON");
  }
  const lists = ["tasks", "inputs", "outputs"].every((field) => Array.isArray(manifest?.[field]));
  const objects = ["files", "modules"].every((field) => manifest?.[field] && typeof manifest[field] === "object");
  if (manifest?.schema_version !== SCHEMA_VERSION || !lists || !objects || !manifest.files["model.onnx"]) {
    throw new Failure(`eptx.json: does not describe a bundle of version ${SCHEMA_VERSION}`);
  }
  const outside = Object.keys(manifest.files).find((name) => OUTSIDE.test(name));
  if (outside !== undefined) throw new Failure(`eptx.json: names a file ${JSON.stringify(outside)} outside of the bundle`);
  if (manifest.provider !== "cpu") {
    throw new Failure(`this bundle is for ${manifest.provider}; validate it with eptx validate --against-proof`, NOT_SUPPORTED);
  }
  return manifest;
}

/**
 * The bytes of the models and of their weights; every other file is only compared with its hash.
 * @param {object} manifest
 * @param {(name: string, size: number, received: (bytes: number) => void) => Promise<Uint8Array>} read one file
 * @param {(stage: string, done: number, all: number) => void} progress in bytes
 * @returns {Promise<Map<string, Uint8Array>>}
 */
export async function readFiles(manifest, read, progress) {
  const kept = new Map();
  const graphs = ["model.onnx", ...(manifest.encoder ? [manifest.encoder.file] : [])];
  const all = Object.values(manifest.files).reduce((sum, file) => sum + file.size, 0);
  let loaded = 0;
  const received = (bytes) => progress(LOADING, (loaded += bytes), all);
  for (const [name, { size, sha256: wanted }] of Object.entries(manifest.files)) {
    const bytes = await read(name, size, received);
    if (bytes.length !== size) throw new Failure(`${name}: has ${bytes.length} bytes; eptx.json says ${size}`);
    if ((await sha256(bytes)) !== wanted) {
      throw new Failure(`${name}: its content does not match its SHA-256; the file was changed or damaged`);
    }
    if (graphs.some((graph) => name.startsWith(graph))) kept.set(name, bytes);
  }
  return kept;
}
