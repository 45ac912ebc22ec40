// Runs a bundle's model on one batch: in one call, or, for a generator, on the prompt and then token by token.
//
// A generator gets its rows padded on the right, whichever side the batch is padded on; its outputs are put back where
// the batch has the tokens. The cache goes from call to call, and so does what the model chose for the prompt.
import { Failure } from "./failure.js";
import { product } from "./sample.js";
import { ANSWER_IDS, ENCODER_MASK, PAST, PRESENT, ROUTE_GROUP, TASK_ID, USED, AUTO, INFER } from "./names.js";
import { numbers } from "./values.js";

const ARRAYS = { float32: Float32Array, float16: Uint16Array, int64: BigInt64Array, int32: Int32Array };

export class DecodeLoop {
  #manifest;
  #batch;

  /** The encoder's outputs, once the batch has run. */
  encoded = new Map();

  constructor(manifest, batch) {
    [this.#manifest, this.#batch] = [manifest, batch];
  }

  /**
   * Runs the batch, and gives the outputs of every call.
   * @param {(feeds: object) => Promise<Map>} run calls model.onnx
   * @param {?(feeds: object) => Promise<Map>} encode calls the encoder, where there is one
   */
  async run(run, encode) {
    const { inputs, prompt, length, tasks } = this.#batch;
    const given = taskIds(this.#manifest, tasks);
    if (prompt === null) return [await run({ ...inputs, ...given })];
    const tokens = this.#leftAligned(inputs[ANSWER_IDS] ?? inputs.input_ids);
    const mask = encode ? { ...tokens, data: tokens.data.map(() => 1n) } : this.#leftAligned(inputs.attention_mask);
    let state = { ...this.#firstCache(), ...this.#choices(), ...given, ...(await this.#encode(encode, given)) };
    const known = new Set(this.#manifest.inputs.map((spec) => spec.name));
    const kept = (feeds) => Object.fromEntries(Object.entries(feeds).filter(([name]) => known.has(name)));
    const calls = [];
    for (let [start, stop] = [0, prompt]; stop <= length; [start, stop] = [stop, stop + 1]) {
      const feeds = {
        input_ids: columns(tokens, start, stop),
        attention_mask: columns(mask, 0, stop),
      };
      state = kept(state);
      const values = await run({ ...kept(feeds), ...state });
      state = Object.fromEntries(Object.entries(state).map(([name, value]) => [name, values.get(source(name)) ?? value]));
      calls.push(new Map([...values].filter(([name]) => !name.startsWith(PRESENT))));
    }
    return calls;
  }

  /**
   * A value of all calls, as numbers, its positions where the batch has them; of the first call, if it has no positions.
   * @param {Map[]} calls
   * @param {string} name
   * @param {[number, number]} taken the features to take of it
   */
  joined(calls, name, taken) {
    const { prompt, tasks, shift } = this.#batch;
    const values = calls.map((call) => numbers(call.get(name), taken));
    if (prompt === null || values[0].dims.length < 2 || name.endsWith(USED)) return values[0];
    const rows = tasks.length;
    const width = product(values[0].dims) / (rows * prompt);
    if (!Number.isInteger(width) || values.slice(1).some(({ dims }) => product(dims) !== rows * width)) {
      throw new Failure(`the model's value ${name} has no position for each token`);
    }
    const length = prompt + values.length - 1;
    const at = (i) => {
      const [row, position, feature] = [Math.floor(i / (length * width)), Math.floor(i / width) % length, i % width];
      if (position >= prompt) return values[position - prompt + 1].at(row * width + feature);
      const own = (position - shift[row] + prompt) % prompt;
      return values[0].at((row * prompt + own) * width + feature);
    };
    return { dims: [rows, length, width], at };
  }

  /** Runs the encoder; its outputs are inputs of the decoder. */
  async #encode(encode, given) {
    if (!encode) return {};
    const { [ANSWER_IDS]: _, ...text } = this.#batch.inputs;
    const known = this.#manifest.encoder.inputs.map((spec) => spec.name);
    const feeds = Object.entries({ ...text, ...given }).filter(([name]) => known.includes(name));
    this.encoded = await encode(Object.fromEntries(feeds));
    const used = [...this.encoded].filter(([name]) => name.endsWith(USED));
    return {
      ...Object.fromEntries(this.encoded),
      ...Object.fromEntries(used.map(([name, value]) => [name.slice(0, -USED.length), value])),
      ...(text.attention_mask ? { [ENCODER_MASK]: text.attention_mask } : {}),
    };
  }

  /** The columns with each prompt's padding moved behind it. */
  #leftAligned({ type, dims: [rows, length], data }) {
    const { prompt, shift } = this.#batch;
    const moved = data.slice();
    for (let row = 0; row < rows; row++) {
      for (let at = 0; at < prompt; at++) moved[row * length + at] = data[row * length + ((at + shift[row]) % prompt)];
    }
    return { type, dims: [rows, length], data: moved };
  }

  /** A cache of no positions. */
  #firstCache() {
    const specs = this.#manifest.inputs.filter((spec) => spec.name.startsWith(PAST));
    const dims = ({ shape }) => [this.#batch.tasks.length, shape[1], 0, shape[3]];
    return Object.fromEntries(specs.map((spec) => [spec.name, filled(spec.dtype, dims(spec), 0)]));
  }

  /** Route inputs that leave the choice to the model: group -1, and weights that it ignores. */
  #choices() {
    const specs = this.#manifest.inputs.filter((spec) => spec.name.startsWith("route_"));
    const dims = ({ shape }) => [this.#batch.tasks.length, ...shape.slice(1)];
    return Object.fromEntries(specs.map((spec) => [spec.name, filled(spec.dtype, dims(spec), spec.name === ROUTE_GROUP ? -1 : 0)]));
  }
}

/** The rows' task ids in the bundle, or one where it takes one for all; nothing if it takes none. */
function taskIds(manifest, tasks) {
  const taken = manifest.inputs.find((spec) => spec.name === TASK_ID);
  if (taken === undefined) return {};
  const known = new Map([...manifest.tasks.map((task) => [task.name, task.id]), [AUTO, INFER]]);
  const unknown = tasks.find((task) => !known.has(task));
  if (unknown !== undefined) throw new Failure(`eptx.json names no task '${unknown}', which the adapter has`);
  const ids = BigInt64Array.from(tasks, (task) => BigInt(known.get(task)));
  const data = typeof taken.shape[0] === "string" ? ids : ids.slice(0, 1);
  return { [TASK_ID]: { type: "int64", data, dims: [data.length] } };
}

function columns({ type, dims: [rows, length], data }, start, stop) {
  const found = new BigInt64Array(rows * (stop - start));
  for (let row = 0; row < rows; row++) found.set(data.subarray(row * length + start, row * length + stop), row * (stop - start));
  return { type, dims: [rows, stop - start], data: found };
}

function filled(type, dims, value) {
  const data = new ARRAYS[type](product(dims));
  return { type, dims, data: data.fill(data instanceof BigInt64Array ? BigInt(value) : value) };
}

/** The output that feeds an input in the next call. */
function source(name) {
  return name.startsWith(PAST) ? PRESENT + name.slice(PAST.length) : name + USED;
}
