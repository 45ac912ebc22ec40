// A bundle's model, opened in ONNX Runtime and run on a batch: as it is shipped, or with its inside visible.
import { Failure, oneLine } from "./failure.js";
import { numbers } from "./values.js";

const FOLDING_LIMIT = 64 * 2 ** 20;
const TASK_ID = "task_id";
const AUTO = "auto";
const INFER = -1;

/**
 * Opens a graph whose weights are the bundle's.
 * @param {object} runtime {ort: onnxruntime-node or -web, provider: "cpu" or "wasm"}
 * @param {object} bundle {manifest, files}
 * @param {Uint8Array} graph the bytes of model.onnx, or of a copy that shows more
 */
export async function openModel({ ort, provider }, { manifest, files }, graph) {
  const weights = [...files].filter(([name]) => name.startsWith("model.onnx."));
  const size = Object.values(manifest.files).reduce((sum, file) => sum + file.size, 0);
  const options = {
    executionProviders: [provider],
    externalData: weights.map(([path, data]) => ({ path, data })),
    logSeverityLevel: 4, // errors are thrown; nothing is printed
    extra: {
      // as eptx opens it: a small model can ask constant folding for gigabytes
      optimization: { constant_folding_max_output_size_in_bytes: String(Math.max(size, FOLDING_LIMIT)) },
      session: { x64quantprecision: "1" },
    },
  };
  try {
    return new Model(ort, await ort.InferenceSession.create(graph, options), manifest);
  } catch (error) {
    throw new Failure(`model.onnx: ONNX Runtime does not load it: ${oneLine(error)}`);
  }
}

class Model {
  #ort;
  #session;
  #manifest;

  constructor(ort, session, manifest) {
    [this.#ort, this.#session, this.#manifest] = [ort, session, manifest];
  }

  /** Checks that the model has the inputs and outputs of eptx.json. */
  checkSignature() {
    const { inputMetadata, outputMetadata } = this.#session;
    for (const [what, specs, values] of [
      ["input", this.#manifest.inputs, inputMetadata],
      ["output", this.#manifest.outputs, outputMetadata],
    ]) {
      const said = new Map(specs.map((spec) => [spec.name, spec]));
      const has = new Map(values.map((value) => [value.name, value]));
      for (const name of [...new Set([...said.keys(), ...has.keys()])].sort()) {
        if (!agree(said.get(name), has.get(name))) throw new Failure(`the model's ${what} '${name}' is not what eptx.json says`);
      }
    }
  }

  /**
   * Runs a batch; every value by name, as numbers.
   * @param {object} batch of a proof
   */
  async run(batch) {
    const feeds = Object.fromEntries(
      Object.entries(batch.inputs).map(([name, { type, data, dims }]) => [name, new this.#ort.Tensor(type, data, dims)]),
    );
    const ids = this.#taskIds(batch.tasks);
    if (ids !== null) feeds[TASK_ID] = new this.#ort.Tensor("int64", ids, [ids.length]);
    let found;
    try {
      found = await this.#session.run(feeds);
    } catch (error) {
      throw new Failure(`the model does not run: ${oneLine(error)}`);
    }
    return new Map(Object.entries(found));
  }

  async close() {
    await this.#session.release();
  }

  /** The rows' task ids in the bundle, or one where it takes one for all; null if it takes none. */
  #taskIds(tasks) {
    const taken = this.#manifest.inputs.find((spec) => spec.name === TASK_ID);
    if (taken === undefined) return null;
    const known = new Map([...this.#manifest.tasks.map((task) => [task.name, task.id]), [AUTO, INFER]]);
    const unknown = tasks.find((task) => !known.has(task));
    if (unknown !== undefined) throw new Failure(`eptx.json names no task '${unknown}', which the adapter has`);
    const ids = BigInt64Array.from(tasks, (task) => BigInt(known.get(task)));
    return typeof taken.shape[0] === "string" ? ids : ids.slice(0, 1);
  }
}

/** Whether types and ranks agree, and the sizes that both know. */
function agree(said, has) {
  if (said === undefined || has === undefined || said.dtype !== has.type || said.shape.length !== has.shape.length) return false;
  return said.shape.every((size, i) => typeof size !== "number" || typeof has.shape[i] !== "number" || size === has.shape[i]);
}

/**
 * What every adapted module gives, of the values of an observed model.
 * @param {object} manifest
 * @param {Map} values
 */
export function moduleValues(manifest, values) {
  const places = Object.entries(manifest.modules);
  const absent = places.find(([, place]) => !values.has(place.output));
  if (absent) throw new Failure(`the model has no value ${absent[1].output}, where eptx.json says module ${absent[0]} is`);
  return new Map(places.map(([name, { output, columns }]) => [name, numbers(values.get(output), columns)]));
}

/**
 * What every router chose, of the values of an observed model: {dims, numbers}, experts numbered as in the adapter.
 * @param {object} manifest
 * @param {{module: string, names: string[]}[]} routes where the graph holds them
 * @param {Map} values
 */
export function choices(manifest, routes, values) {
  const found = routes.filter(({ names }) => names.every((name) => values.has(name)));
  return new Map(
    found.map(({ module, names: [choice] }) => {
      const { dims, data } = values.get(choice);
      return [module, { dims, numbers: renumbered(Array.from(data, Number), manifest.modules[module].unused_experts ?? []) }];
    }),
  );
}

/** Expert numbers of the adapter, given numbers among the experts that the model kept. */
function renumbered(chosen, unused) {
  if (!unused.length) return chosen;
  const kept = Array.from({ length: Math.max(...chosen) + 1 + unused.length }, (_, i) => i).filter((i) => !unused.includes(i));
  return chosen.map((i) => kept.at(i));
}
