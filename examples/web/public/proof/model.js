// A bundle's models, opened together and run on batches: as they are shipped, or with their inside visible.
import { DecodeLoop } from "./decode.js";
import { Failure } from "./failure.js";
import { openGraph } from "./graph.js";
import { USED } from "./names.js";
import { joined } from "./tensors.js";
import { numbers } from "./values.js";

/** What `open` opens. */
export const [SHIPPED, FLOAT, OBSERVED] = ["as it is shipped", "without rounded activations", "with its inside visible"];

/**
 * Opens a bundle's models.
 * @param {object} runtime see `openGraph`
 * @param {object} bundle {manifest, files}
 * @param {object} proof
 * @param {string} how SHIPPED; FLOAT: with no activation rounded to 8 bits; OBSERVED: that, and with its inside visible
 */
export async function open(runtime, bundle, proof, how) {
  const { manifest, files } = bundle;
  const bytes = (file, { added, floatActivations }) => {
    const own = how === SHIPPED ? files.get(file) : (floatActivations ?? files.get(file));
    return how === OBSERVED ? joined(own, added) : own;
  };
  const graph = await openGraph(runtime, bundle, bytes("model.onnx", proof.models));
  if (how === SHIPPED) graph.checkSignature(manifest);
  const { encoder } = proof.models;
  const first = encoder && (await openGraph(runtime, bundle, bytes(manifest.encoder.file, encoder)));
  return new Model(manifest, graph, first, how === OBSERVED ? proof.models : null);
}

class Model {
  #manifest;
  #graph;
  #encoder;
  #observed;

  constructor(manifest, graph, encoder, observed) {
    [this.#manifest, this.#graph, this.#encoder, this.#observed] = [manifest, graph, encoder, observed];
  }

  /**
   * Runs a batch.
   * @param {object} batch of a proof
   * @returns {Promise<{outputs: Map, modules: Map, routes: Map[]}>} outputs and modules as numbers; for every call, the
   *   choice of each module's router; no modules and no routes unless it is observed
   */
  async run(batch) {
    const loop = new DecodeLoop(this.#manifest, batch);
    const encode = this.#encoder && ((feeds) => this.#encoder.run(feeds));
    const calls = await loop.run((feeds) => this.#graph.run(feeds), encode);
    const { outputs, modules: places, encoder } = this.#manifest;
    const named = outputs.filter(({ name }) => calls[0].has(name)).map(({ name }) => [name, loop.joined(calls, name)]);
    const used = [...loop.encoded].filter(([name]) => name.endsWith(USED)).map(([name, value]) => [name, numbers(value)]);
    if (!this.#observed) return { outputs: new Map([...named, ...used]), modules: new Map(), routes: [] };
    const modules = [
      ...located(places, calls[0]).map(([name, { output, columns }]) => [name, loop.joined(calls, output, columns)]),
      ...located(encoder?.modules ?? {}, loop.encoded).map(([name, { output, columns }]) => [
        name,
        numbers(loop.encoded.get(output), columns),
      ]),
    ];
    const routes = calls.map((call) => choices(places, this.#observed.routes, call));
    if (encoder) routes[0] = new Map([...routes[0], ...choices(encoder.modules, this.#observed.encoder.routes, loop.encoded)]);
    return { outputs: new Map([...named, ...used]), modules: new Map(modules), routes };
  }

  async close() {
    await this.#graph.close();
    await this.#encoder?.close();
  }
}

/** Modules with where eptx.json says that they are, which must be there. */
function located(places, values) {
  const found = Object.entries(places);
  const absent = found.find(([, place]) => !values.has(place.output));
  if (absent) throw new Failure(`the model has no value ${absent[1].output}, where eptx.json says module ${absent[0]} is`);
  return found;
}

/** What every router chose in a call: {dims, numbers}, experts numbered as in the adapter. */
function choices(places, routes, values) {
  const found = routes.filter(({ module, names }) => Object.hasOwn(places, module) && names.every((name) => values.has(name)));
  return new Map(
    found.map(({ module, names: [choice] }) => {
      const { dims, data } = values.get(choice);
      return [module, { dims, numbers: renumbered(Array.from(data, Number), places[module].unused_experts ?? []) }];
    }),
  );
}

/** Expert numbers of the adapter, given numbers among the experts that the model kept. */
function renumbered(chosen, unused) {
  if (!unused.length) return chosen;
  const kept = Array.from({ length: Math.max(...chosen) + 1 + unused.length }, (_, i) => i).filter((i) => !unused.includes(i));
  return chosen.map((i) => kept.at(i));
}
