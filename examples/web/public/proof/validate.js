// Validates a bundle by a proof of it, in Node and in a browser: what differs, ONNX Runtime and how files are read, is
// handed in.
import { checkSame } from "./binding.js";
import { readFiles, readManifest } from "./bundle.js";
import { compare } from "./compare.js";
import { Failure } from "./failure.js";
import { readProof } from "./proof.js";
import { makeReport } from "./report.js";
import { checkGraph } from "./scan.js";

/**
 * What `eptx validate BUNDLE --against-proof PROOF` finds on one backend, the functions that the model holds.
 * @param {object} given
 * @param given.ort onnxruntime-node or onnxruntime-web
 * @param {"cpu" | "wasm"} given.provider of that ONNX Runtime
 * @param {(name: string, size?: number, received?: (bytes: number) => void) => Promise<Uint8Array>} given.read one file of
 *   the bundle; calls `received` while it comes, if it takes long
 * @param {{name: string, bytes: Uint8Array}} given.proof the proof's file
 * @param {(stage: string, done: number, all: number) => void} given.progress called while it runs: batches, of LOADING bytes
 * @returns {Promise<object>} a report with the fields of validation.json; infinite numbers stand where that has null
 */
export async function validate({ ort, provider, read, proof: file, progress = () => {} }) {
  const seconds = {};
  const timed = async (stage, run) => {
    const start = performance.now();
    const found = await run();
    seconds[stage] = Math.round(performance.now() - start) / 1000;
    return found;
  };
  const [proof, manifest, checks] = await timed("reading the proof", async () => {
    const manifest = readManifest(await read("eptx.json"));
    const proof = await readProof(file.name, file.bytes);
    if (Boolean(proof.models.encoder) !== Boolean(manifest.encoder)) {
      throw new Failure(`${file.name}: is the proof of another bundle: its encoder differs`);
    }
    return [proof, manifest, [...proof.checks, ...checkSame(file.name, proof.bundle, manifest)]];
  });
  const files = await timed("checking the bundle", async () => {
    const files = await readFiles(manifest, read, progress);
    checkGraphs(manifest, files, proof.models);
    return files;
  });
  const results = await timed("running the bundle", () => compare({ ort, provider }, { manifest, files }, proof, progress));
  return makeReport({ manifest, proof, provider, results, checks, seconds });
}

/** A bundle's graphs, and what a proof adds to them or puts in their place, may refer to no other file. */
function checkGraphs(manifest, files, models) {
  for (const [name, { added, floatActivations }] of [
    ["model.onnx", models],
    ...(models.encoder ? [[manifest.encoder.file, models.encoder]] : []),
  ]) {
    for (const bytes of [files.get(name), added, floatActivations]) {
      if (bytes) checkGraph(name, bytes, manifest.files);
    }
  }
}
