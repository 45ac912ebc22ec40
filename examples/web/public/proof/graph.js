// One graph of a bundle, or a copy that shows more, opened in ONNX Runtime.
import { Failure, oneLine } from "./failure.js";

const FOLDING_LIMIT = 64 * 2 ** 20;

/**
 * Opens a graph whose weights are the bundle's.
 * @param {object} runtime {ort: onnxruntime-node or -web, provider: "cpu" or "wasm"}
 * @param {object} bundle {manifest, files}
 * @param {Uint8Array} bytes of the graph
 */
export async function openGraph({ ort, provider }, { manifest, files }, bytes) {
  // a file of no bytes, beside a model that holds all of its weights, is none to ONNX Runtime in Node
  const weights = [...files].filter(([name, data]) => data.length > 0 && !name.endsWith(".onnx"));
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
    return new Graph(ort, await ort.InferenceSession.create(bytes, options));
  } catch (error) {
    throw new Failure(`model.onnx: ONNX Runtime does not load it: ${oneLine(error)}`);
  }
}

class Graph {
  #ort;
  #session;

  constructor(ort, session) {
    [this.#ort, this.#session] = [ort, session];
  }

  /** Checks that it has the inputs and outputs of eptx.json. */
  checkSignature({ inputs, outputs }) {
    const { inputMetadata, outputMetadata } = this.#session;
    for (const [what, specs, values] of [
      ["input", inputs, inputMetadata],
      ["output", outputs, outputMetadata],
    ]) {
      const said = new Map(specs.map((spec) => [spec.name, spec]));
      const has = new Map(values.map((value) => [value.name, value]));
      for (const name of [...new Set([...said.keys(), ...has.keys()])].sort()) {
        if (!agree(said.get(name), has.get(name))) throw new Failure(`the model's ${what} '${name}' is not what eptx.json says`);
      }
    }
  }

  /**
   * One call.
   * @param {Object<string, {type: string, data: TypedArray, dims: number[]}>} feeds
   * @returns {Promise<Map<string, object>>} all outputs by name
   */
  async run(feeds) {
    try {
      const tensor = ({ type, data, dims }) => new this.#ort.Tensor(type, data, dims);
      const given = Object.entries(feeds).map(([name, value]) => [name, tensor(value)]);
      return new Map(Object.entries(await this.#session.run(Object.fromEntries(given))));
    } catch (error) {
      throw new Failure(`the model does not run: ${oneLine(error)}`);
    }
  }

  async close() {
    await this.#session.release();
  }
}

/** Whether types and ranks agree, and the sizes that both know. */
function agree(said, has) {
  if (said === undefined || has === undefined || said.dtype !== has.type || said.shape.length !== has.shape.length) return false;
  return said.shape.every((size, i) => typeof size !== "number" || typeof has.shape[i] !== "number" || size === has.shape[i]);
}
