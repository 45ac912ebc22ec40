// Classifies texts or images with a bundle, rows of different tasks in one batch. It runs in Node and in a browser: what
// differs, ONNX Runtime and how files are read, is handed in.

const ARRAYS = { int64: BigInt64Array, int32: Int32Array };

export class Classifier {
  #ort;
  #session;
  #manifest;
  #reader;

  /**
   * @param ort onnxruntime-node or onnxruntime-web
   * @param session an InferenceSession of the bundle's model.onnx
   * @param manifest the bundle's eptx.json
   * @param {Text | Pixels} reader makes the model's inputs of rows
   */
  constructor(ort, session, manifest, reader) {
    [this.#ort, this.#session, this.#manifest, this.#reader] = [ort, session, manifest, reader];
  }

  /** The tasks that answer with labels or a number: {name, id, labels, label_names}. */
  get tasks() {
    return this.#manifest.tasks.filter((task) => task.labels > 0);
  }

  /**
   * Answers rows in one run of the model.
   * @param {object[]} rows each with `task`, and `text` and perhaps `text_pair`, or `image`: see Text and Pixels
   * @returns {Promise<{answers: object[], size: string, milliseconds: number}>} an answer for each row, see `answer`;
   *   how large a row is; what reading and the run took
   */
  async classify(rows) {
    const start = performance.now();
    const tasks = rows.map((row) => this.#task(row.task));
    const { dims, columns } = this.#reader.batch(rows);
    const feeds = {};
    for (const { name, dtype, shape } of this.#manifest.inputs) {
      const values = name === "task_id" ? tasks.map((task) => task.id) : columns[name];
      if (values === undefined) throw new Error(`the model has an input ${name}, which the rows do not give`);
      const data = dtype === "float32" ? values : ARRAYS[dtype].from(values, dtype === "int64" ? BigInt : Number);
      feeds[name] = new this.#ort.Tensor(dtype, data, shape.length === 1 ? [rows.length] : dims);
    }
    const { logits } = await this.#session.run(feeds, ["logits"]);
    const width = logits.dims[1];
    const answers = tasks.map((task, i) => answer(task, logits.data.slice(i * width, i * width + task.labels)));
    const size = dims.length === 2 ? `${dims[1]} tokens` : `${dims[3]} x ${dims[2]} pixels`;
    return { answers, size, milliseconds: performance.now() - start };
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
  if (readsImages(manifest)) {
    if (!manifest.image) throw new Error("this bundle does not say how an image becomes pixel_values; export it again");
    return;
  }
  if (!manifest.files["tokenizer.json"]) throw new Error("this bundle has no tokenizer.json");
}

/** Whether the rows of a bundle are images. */
export function readsImages(manifest) {
  const names = manifest.inputs.map(({ name }) => name);
  return names.includes("pixel_values") && !names.includes("input_ids");
}

/** The bundle's files that are needed to run it. */
export function neededFiles(manifest) {
  const named = ["tokenizer.json", "tokenizer_config.json"];
  return Object.keys(manifest.files).filter((name) => named.includes(name) || name.startsWith("model.onnx"));
}

/**
 * A task's answer: its one number and what it is called, or the best label and each label's probability (softmax of its
 * logits). Where several labels may hold, each has a probability of its own (sigmoid), and those above 1/2 are the answer.
 */
function answer(task, logits) {
  const values = Array.from(logits);
  if (values.length === 1 && task.problem_type !== "multi_label_classification") {
    return { task: task.name, logits: values, label: task.label_names?.[0], value: values[0] };
  }
  const several = task.problem_type === "multi_label_classification";
  const labels = (several ? values.map(sigmoid) : softmax(values)).map((probability, i) => ({
    name: task.label_names?.[i] ?? `label ${i}`,
    probability,
  }));
  const held = labels.filter(({ probability }) => probability > 0.5).map(({ name }) => name);
  const label = several ? held.join(", ") || "none" : labels[values.indexOf(Math.max(...values))].name;
  return { task: task.name, logits: values, label, labels };
}

const sigmoid = (value) => 1 / (1 + Math.exp(-value));

function softmax(values) {
  const highest = Math.max(...values);
  const weights = values.map((value) => Math.exp(value - highest));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}
