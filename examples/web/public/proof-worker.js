// Validates the bundle of this server by its proof, beside the page. It says {progress}, then {report} or {error}.
import { download, get } from "./download.js";
import { oneLine } from "./proof/failure.js";
import { validate } from "./proof/validate.js";
import * as ort from "./vendor/onnxruntime-web/ort.wasm.min.mjs";

const BUNDLE = "bundle/";
const PROOF = "bundle.proof";

const bytesOf = async (address) => new Uint8Array(await (await get(address)).arrayBuffer());

async function main() {
  if (!crossOriginIsolated) ort.env.wasm.numThreads = 1; // threads share memory, which only isolated pages may
  return validate({
    ort,
    provider: "wasm",
    read: (name, size, received) => (size === undefined ? bytesOf(BUNDLE + name) : download(BUNDLE, name, size, received)),
    proof: { name: PROOF, bytes: await bytesOf(PROOF) },
    progress: (...progress) => postMessage({ progress }),
  });
}

main().then(
  (report) => postMessage({ report }),
  (error) => postMessage({ error: oneLine(error) }),
);
