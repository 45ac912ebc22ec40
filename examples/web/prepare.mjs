// node prepare.mjs BUNDLE [PROOF]: completes public/ with the bundle and the two libraries. What it holds then is the
// whole site, for any web server. With a proof, the bundle is copied whole, for proof.html to validate.
import { cpSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { checkBundle, neededFiles } from "./public/classify.js";

const HERE = dirname(fileURLToPath(import.meta.url));
const PUBLIC = join(HERE, "public");
const LIBRARIES = {
  "onnxruntime-web/dist": ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"],
  "@huggingface/tokenizers/dist": ["tokenizers.min.mjs"],
};

function copy(source, names, target) {
  rmSync(target, { recursive: true, force: true });
  mkdirSync(target, { recursive: true });
  for (const name of names) cpSync(join(source, name), join(target, name));
}

try {
  const [bundle, proof] = process.argv.slice(2);
  if (!bundle) throw new Error("usage: node prepare.mjs BUNDLE [PROOF]");
  const manifest = JSON.parse(readFileSync(join(bundle, "eptx.json"), "utf8"));
  if (!proof) checkBundle(manifest); // a bundle that cannot classify can still be validated
  copy(bundle, ["eptx.json", ...(proof ? Object.keys(manifest.files) : neededFiles(manifest))], join(PUBLIC, "bundle"));
  rmSync(join(PUBLIC, "bundle.proof"), { force: true });
  if (proof) cpSync(proof, join(PUBLIC, "bundle.proof"));
  for (const [folder, names] of Object.entries(LIBRARIES)) {
    copy(join(HERE, "node_modules", folder), names, join(PUBLIC, "vendor", folder.split("/").at(-2)));
  }
  console.log("public/ is complete: node serve.mjs");
} catch (error) {
  console.error(`error: ${error.message}`);
  process.exitCode = 1;
}
