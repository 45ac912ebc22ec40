// node prepare.mjs BUNDLE: completes public/ with the bundle and the two libraries. What it holds then is the
// whole site, for any web server.
import { cpSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { checkBundle, neededFiles } from "./public/classify.js";

const HERE = dirname(fileURLToPath(import.meta.url));
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
  const [bundle] = process.argv.slice(2);
  if (!bundle) throw new Error("usage: node prepare.mjs BUNDLE");
  const manifest = JSON.parse(readFileSync(join(bundle, "eptx.json"), "utf8"));
  checkBundle(manifest);
  copy(bundle, ["eptx.json", ...neededFiles(manifest)], join(HERE, "public", "bundle"));
  for (const [folder, names] of Object.entries(LIBRARIES)) {
    copy(join(HERE, "node_modules", folder), names, join(HERE, "public", "vendor", folder.split("/").at(-2)));
  }
  console.log("public/ is complete: node serve.mjs");
} catch (error) {
  console.error(`error: ${error.message}`);
  process.exitCode = 1;
}
