// A proof, as docs/proof.md describes it: what the trained model gave for some batches, and what binds it to its bundle.
import { Spread, Spreads } from "./distance.js";
import { Failure, oneLine } from "./failure.js";
import { ANSWER_IDS } from "./names.js";
import { places } from "./sample.js";
import { readTensors } from "./tensors.js";

const VERSION = 1;

/**
 * Reads a proof.
 * @param {string} name the file's name; errors begin with it
 * @param {Uint8Array} bytes
 */
export async function readProof(name, bytes) {
  const { content, arrays } = await readTensors(name, bytes);
  if (content.version !== VERSION) {
    throw new Failure(`${name}: is of version ${JSON.stringify(content.version)}; this reads version ${VERSION}: record it anew`);
  }
  try {
    return proof(content, arrays);
  } catch (error) {
    throw new Failure(`${name}: damaged: it does not hold what a proof holds (${oneLine(error).slice(0, 80)})`);
  }
}

function proof(content, arrays) {
  const columns = whole(content.columns, "columns");
  const array = (key, type) => {
    const found = arrays.get(key);
    if (found?.type !== type) throw new TypeError(`${key}: no array of ${type}`);
    return found;
  };
  return {
    generator: text(content.generator, "generator"),
    bundle: object(content.bundle, "bundle"),
    columns,
    redrawn: whole(content.redrawn, "redrawn"),
    unclear: object(content.unclear, "unclear"),
    folded: object(content.folded, "folded"),
    batches: list(content.batches, "batches").map((facts, i) => batch(`batches.${i}`, facts, columns, arrays, array)),
    experts: list(content.experts, "experts").map(({ module }) => table(text(module, "module"), array)),
    models: models(content.models, arrays, array),
    checks: list(content.checks, "checks").map((check) => object(check, "check")),
    drops: list(content.drops, "drops").map(({ drop, budget }) => ({ ...object(drop, "drop"), budget })),
    divergences: list(content.divergences, "divergences").map((one) => object(one, "divergence")),
    ...Object.fromEntries(["noise", "scale", "effect"].map((kind) => [kind, spreads(list(content[kind], kind))])),
  };
}

function batch(own, facts, columns, arrays, array) {
  const tasks = list(facts.tasks, "tasks").map((task) => text(task, "task"));
  const inputs = list(facts.inputs, "inputs").map((name) => [name, arrays.get(`${own}.inputs.${name}`)]);
  for (const [name, tensor] of inputs) {
    if (tensor?.dims[0] !== tasks.length) throw new TypeError(`${own}: no input ${name} of ${tasks.length} rows`);
  }
  const [compared, ids] = [array(`${own}.compared`, "bool"), array(`${own}.task`, "int64")];
  if (compared.data.length !== tasks.length || ids.data.length !== tasks.length) throw new TypeError(`${own}: rows`);
  const made = {
    name: text(facts.name, "name"),
    tasks,
    inputs: Object.fromEntries(inputs),
    ...generates(facts, Object.fromEntries(inputs)),
    mask: mask(Object.fromEntries(inputs).attention_mask),
    greedy: facts.greedy === true,
    inside: facts.inside === true,
    compared: Array.from(compared.data, Boolean),
    ids: Array.from(ids.data, Number),
    groups: list(facts.groups, "groups").map((call) => object(call, "groups")),
  };
  for (const kind of ["outputs", "inner", "modules"]) {
    made[kind] = Object.entries(object(facts[kind], kind)).map(([name, shape]) => [
      name,
      sampled(`${own}.${kind}.${name}`, list(shape, "shape"), made, columns, arrays, array),
    ]);
  }
  return made;
}

/** How many columns the tokens have, and the prompts, null of no generator; how much padding stands before each row. */
function generates({ prompt }, inputs) {
  const tokens = inputs[ANSWER_IDS] ?? Object.values(inputs)[0];
  const [rows, length] = tokens.dims;
  if (prompt === null) return { length, prompt };
  fits(whole(prompt, "prompt") > 0 && prompt <= length && tokens.data instanceof BigInt64Array, "prompt");
  const kept = mask(inputs.attention_mask);
  const before = (row) => kept.kept.slice(row * kept.dims[1], (row + 1) * kept.dims[1]).indexOf(true);
  return { length, prompt, shift: Array.from({ length: rows }, (_, row) => (kept === null ? 0 : Math.max(0, before(row)))) };
}

/** What of the positions is no padding; null where there is no mask, or one per choice. */
function mask(tensor) {
  return tensor?.dims.length === 2 ? { dims: tensor.dims, kept: Array.from(tensor.data, Boolean) } : null;
}

function sampled(key, shape, made, columns, arrays, array) {
  const values = array(key, "float64");
  const { rows, width } = places(shape, made);
  const kept = Math.min(columns, width);
  if (shape[0] !== made.tasks.length || String(values.dims) !== String([rows.length, kept])) {
    throw new TypeError(`${key}: is not the sample of a value of shape ${shape}`);
  }
  const found = { shape, columns: kept, values: values.data, largest: null };
  if (arrays.has(`${key}.largest`)) {
    const [indices, numbers] = [array(`${key}.largest`, "int64"), array(`${key}.largest_values`, "float64")];
    if (indices.dims[0] !== rows.length || String(indices.dims) !== String(numbers.dims)) throw new TypeError(`${key}: largest`);
    found.largest = { count: indices.dims[1], indices: Array.from(indices.data, Number), values: numbers.data };
  }
  return found;
}

function table(module, array) {
  const own = `experts.${module}`;
  const [experts, tied] = [array(`${own}.experts`, "int64"), array(`${own}.tied`, "bool")];
  const [tasks, count] = experts.dims;
  const row = (task) => Array.from(experts.data.slice(task * count, (task + 1) * count), Number);
  return { module, experts: Array.from({ length: tasks }, (_, task) => row(task)), tied: Array.from(tied.data, Boolean) };
}

function models(facts, arrays, array, own = "model") {
  const copy = `${own}.float_activations`;
  return {
    added: array(`${own}.added`, "uint8").data,
    order: list(facts.order, "order").map((module) => text(module, "module")),
    routes: Object.entries(object(facts.routes, "routes")).map(([module, names]) => ({ module, names: list(names, "route") })),
    floatActivations: arrays.has(copy) ? array(copy, "uint8").data : null,
    encoder: facts.encoder === null ? null : models(object(facts.encoder, "encoder"), arrays, array, "encoder"),
  };
}

function spreads(rows) {
  const found = new Spreads();
  for (const [task, kind, name, count, squares, largest] of rows) {
    const sizes = [count, squares, largest].map((size) => number(size, "spread"));
    found.set(text(task, "task"), text(kind, "kind"), text(name, "name"), new Spread(...sizes));
  }
  return found;
}

function fits(right, what) {
  if (!right) throw new TypeError(`${what} is missing or of another type`);
}

function object(value, what) {
  fits(value !== null && typeof value === "object" && !Array.isArray(value), what);
  return value;
}

function list(value, what) {
  fits(Array.isArray(value), what);
  return value;
}

function text(value, what) {
  fits(typeof value === "string", what);
  return value;
}

function number(value, what) {
  fits(typeof value === "number", what);
  return value;
}

function whole(value, what) {
  fits(Number.isSafeInteger(value) && value >= 0, what);
  return value;
}
