// node node.mjs BUNDLE TASK[,TASK...] TEXT [SECOND_TEXT]
// node node.mjs BUNDLE --input ROWS.jsonl       rows with text, text_pair and task; answers as JSON lines
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Tokenizer } from "@huggingface/tokenizers";
import ort from "onnxruntime-node";
import { Classifier, checkBundle, readsImages } from "./public/classify.js";
import { Text } from "./public/text.js";

const BATCH = 32;

async function open(bundle) {
  const read = (name) => JSON.parse(readFileSync(join(bundle, name), "utf8"));
  const manifest = read("eptx.json");
  checkBundle(manifest);
  if (readsImages(manifest)) throw new Error("this bundle reads images, which Node has no decoder for: see the page");
  const tokenizerConfig = manifest.files["tokenizer_config.json"] ? read("tokenizer_config.json") : {};
  const text = new Text(Tokenizer, { manifest, tokenizer: read("tokenizer.json"), tokenizerConfig });
  const session = await ort.InferenceSession.create(join(bundle, "model.onnx"), { logSeverityLevel: 3 });
  return new Classifier(ort, session, manifest, text);
}

function show({ task, label, labels, value }) {
  if (labels === undefined) return `${task}: ${label ?? "value"} ${value.toFixed(3)}`;
  const parts = labels.map(({ name, probability }) => `${name} ${(100 * probability).toFixed(1)} %`);
  return `${task}: ${label} (${parts.join(", ")})`;
}

async function main([bundle, second, ...texts]) {
  if (!bundle || !second || texts.length < 1 || texts.length > 2) {
    throw new Error("usage: node node.mjs BUNDLE TASK[,TASK...] TEXT [SECOND_TEXT], or BUNDLE --input ROWS.jsonl");
  }
  const classifier = await open(bundle);
  if (second === "--input") {
    const lines = readFileSync(texts[0], "utf8").split("\n");
    const rows = lines.filter((line) => line.trim()).map((line) => JSON.parse(line));
    for (let i = 0; i < rows.length; i += BATCH) {
      const { answers } = await classifier.classify(rows.slice(i, i + BATCH));
      for (const answer of answers) console.log(JSON.stringify(answer));
    }
    return;
  }
  const rows = second.split(",").map((task) => ({ task, text: texts[0], text_pair: texts[1] }));
  const { answers, size, milliseconds } = await classifier.classify(rows);
  for (const answer of answers) console.log(show(answer));
  console.log(`${rows.length} rows of ${size} in one batch, ${milliseconds.toFixed(0)} ms`);
}

main(process.argv.slice(2)).catch((error) => {
  console.error(`error: ${error.message}`);
  process.exitCode = 1;
});
