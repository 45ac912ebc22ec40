// The page: loads the bundle with progress, then answers the chosen tasks in one batch.
import { Classifier, checkBundle, neededFiles, readsImages } from "./classify.js";
import { download, get } from "./download.js";
import { element } from "./element.js";
import { Pixels } from "./image/pixels.js";
import { readImage } from "./image/read.js";
import { Text } from "./text.js";
import * as ort from "./vendor/onnxruntime-web/ort.wasm.min.mjs";
import { Tokenizer } from "./vendor/tokenizers/tokenizers.min.mjs";

const BUNDLE = "bundle/";
const CHOSEN_AT_FIRST = 3;
const find = (id) => document.getElementById(id);
const megabytes = (bytes) => (bytes / 1e6).toFixed(1);

/** The bundle's files by name, one after the other, with the bar moving. */
async function loadFiles(manifest) {
  const names = neededFiles(manifest);
  const total = names.reduce((sum, name) => sum + manifest.files[name].size, 0);
  const files = new Map();
  let loaded = 0;
  const received = (bytes) => {
    loaded += bytes;
    find("progress").value = loaded / total;
    find("status").textContent = `Loading the model: ${megabytes(loaded)} of ${megabytes(total)} MB`;
  };
  for (const name of names) files.set(name, await download(BUNDLE, name, manifest.files[name].size, received));
  return files;
}

async function load() {
  const response = await get(`${BUNDLE}eptx.json`).catch(() => {
    throw new Error("there is no bundle here; run prepare.mjs first");
  });
  const manifest = await response.json();
  checkBundle(manifest);
  const files = await loadFiles(manifest);
  find("status").textContent = "Starting";
  const reader = readsImages(manifest) ? new Pixels(manifest) : readerOfText(manifest, files);
  for (const part of find("form").querySelectorAll("[data-reads]")) {
    part.hidden = (part.dataset.reads === "image") !== readsImages(manifest);
  }
  find(readsImages(manifest) ? "text" : "image").required = false; // a hidden field must not hold the form back
  if (!crossOriginIsolated) ort.env.wasm.numThreads = 1; // threads share memory, which only isolated pages may
  const external = [...files.keys()].filter((name) => name.startsWith("model.onnx."));
  const session = await ort.InferenceSession.create(files.get("model.onnx"), {
    executionProviders: ["wasm"],
    externalData: external.map((path) => ({ path, data: files.get(path) })),
    logSeverityLevel: 3,
  });
  return new Classifier(ort, session, manifest, reader);
}

function readerOfText(manifest, files) {
  const json = (name) => (files.has(name) ? JSON.parse(new TextDecoder().decode(files.get(name))) : {});
  const [tokenizer, tokenizerConfig] = [json("tokenizer.json"), json("tokenizer_config.json")];
  return new Text(Tokenizer, { manifest, tokenizer, tokenizerConfig });
}

/** What the form asks about: an image, or texts. */
async function asked() {
  const [file] = find("image").files;
  if (file) return { image: await readImage(file) };
  const second = find("second").value;
  return { text: find("text").value, text_pair: second === "" ? null : second };
}

function bar({ name, probability }) {
  const percent = `${(100 * probability).toFixed(1)} %`;
  const fill = element("i");
  fill.style.width = percent.replace(" ", "");
  const title = String(probability);
  return element("div", { className: "bar", title }, fill, element("span", {}, name), element("span", {}, percent));
}

function card({ task, label, labels, value }) {
  const title = element("h3", {}, task, element("span", {}, label ?? ""));
  const content = labels ? labels.map(bar) : [element("p", { className: "number", title: String(value) }, value.toFixed(3))];
  const made = element("article", { className: "answer" }, title, ...content);
  made.dataset.task = task;
  return made;
}

function showTasks(tasks) {
  const boxes = tasks.map(({ name }, i) => {
    const box = element("input", { type: "checkbox", value: name, checked: i < CHOSEN_AT_FIRST });
    return element("label", {}, box, name);
  });
  find("tasks").replaceChildren(...boxes);
}

const chosenTasks = () => [...document.querySelectorAll("#tasks input:checked")].map((box) => box.value);

async function answer(classifier) {
  const chosen = chosenTasks();
  const input = await asked();
  const rows = chosen.map((task) => ({ task, ...input }));
  const { answers, size, milliseconds } = await classifier.classify(rows);
  find("answers").replaceChildren(...answers.map(card));
  const batch = `${rows.length} ${rows.length === 1 ? "row" : "rows"} of ${size} in one batch`;
  find("took").textContent = `${batch}, ${milliseconds.toFixed(0)} ms`;
  find("results").hidden = false;
  find("loading").hidden = true;
}

function fail(error) {
  find("loading").hidden = false;
  find("loading").className = "failed";
  find("progress").hidden = true;
  find("status").textContent = error.message;
}

async function main() {
  const classifier = await load();
  showTasks(classifier.tasks);
  find("loading").hidden = true;
  const ready = () => (find("run").disabled = chosenTasks().length === 0);
  ready();
  find("tasks").addEventListener("change", ready);
  find("all").addEventListener("click", () => {
    for (const box of document.querySelectorAll("#tasks input")) box.checked = true;
    ready();
  });
  find("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    find("run").disabled = true; // a session runs one batch at a time
    await answer(classifier).catch(fail);
    ready();
  });
}

main().catch(fail);
