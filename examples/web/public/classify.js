// Classifies texts with a bundle, rows of different tasks in one batch. It runs in Node and in a browser: what
// differs, ONNX Runtime and how files are read, is handed in.

const ARRAYS = { int64: BigInt64Array, int32: Int32Array };

export class Classifier {
  #ort;
  #session;
  #manifest;
  #text;

  /**
   * @param ort onnxruntime-node or onnxruntime-web
   * @param session an InferenceSession of the bundle's model.onnx
   * @param manifest the bundle's eptx.json
   * @param {Text} text its tokenizer
   */
  constructor(ort, session, manifest, text) {
    [this.#ort, this.#session, this.#manifest, this.#text] = [ort, session, manifest, text];
  }

  /** The tasks that answer with labels or a number: {name, id, labels, label_names}. */
  get tasks() {
    return this.#manifest.tasks.filter((task) => task.labels > 0);
  }

  /**
   * Answers rows in one run of the model.
   * @param {{text: string, text_pair?: string | null, task: string}[]} rows
   * @returns {Promise<{answers: object[], tokens: number, milliseconds: number}>} an answer for each row, see `answer`;
   *   how many tokens the longest row has; what tokenizing and the run took
   */
  async classify(rows) {
    const start = performance.now();
    const tasks = rows.map((row) => this.#task(row.task));
    const { length, columns } = this.#text.batch(rows);
    const feeds = {};
    for (const { name, dtype, shape } of this.#manifest.inputs) {
      const values = name === "task_id" ? tasks.map((task) => task.id) : columns[name];
      if (values === undefined) throw new Error(`the model has an input ${name}, which text does not give`);
      const data = ARRAYS[dtype].from(values, dtype === "int64" ? BigInt : Number);
      feeds[name] = new this.#ort.Tensor(dtype, data, shape.length === 1 ? [rows.length] : [rows.length, length]);
    }
    const { logits } = await this.#session.run(feeds, ["logits"]);
    const width = logits.dims[1];
    const answers = tasks.map((task, i) => answer(task, logits.data.slice(i * width, i * width + task.labels)));
    return { answers, tokens: length, milliseconds: performance.now() - start };
  }

  #task(name) {
    const task = this.tasks.find((task) => task.name === name);
    if (!task) throw new Error(`no task ${name}; this bundle has ${this.tasks.map((task) => task.name).join(", ")}`);
    return task;
  }
}

/**
 * Whether the bundle is one that this example runs; throws a line that says why not.
 * @param {object} manifest the bundle's eptx.json
 */
export function checkBundle(manifest) {
  if (manifest.generation || manifest.encoder) throw new Error("this bundle generates text; the example classifies");
  if (manifest.mode !== "conditioned") throw new Error(`this bundle is ${manifest.mode}; the example needs conditioned`);
  if (!manifest.outputs.some((output) => output.name === "logits" && output.dtype === "float32")) {
    throw new Error("this bundle has no task heads, so it does not classify");
  }
  if (!manifest.files["tokenizer.json"]) throw new Error("this bundle has no tokenizer.json");
}

/** The bundle's files that are needed to run it. */
export function neededFiles(manifest) {
  const named = ["tokenizer.json", "tokenizer_config.json"];
  return Object.keys(manifest.files).filter((name) => named.includes(name) || name.startsWith("model.onnx"));
}

/** A task's answer: its one number and what it is called, or the best label and each label's probability (softmax of its logits). */
function answer(task, logits) {
  const values = Array.from(logits);
  if (values.length === 1) return { task: task.name, logits: values, label: task.label_names?.[0], value: values[0] };
  const highest = Math.max(...values);
  const weights = values.map((value) => Math.exp(value - highest));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const labels = weights.map((weight, i) => ({
    name: task.label_names?.[i] ?? `label ${i}`,
    probability: weight / total,
  }));
  return { task: task.name, logits: values, label: labels[values.indexOf(highest)].name, labels };
}
