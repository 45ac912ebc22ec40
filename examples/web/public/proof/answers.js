// Logits as answers: how often the bundle's are the reference's.
import { places } from "./sample.js";

const LOGITS = "logits";
const MULTI_LABEL = "multi_label_classification";

/** Counts, per task, how many answers agree. */
export class Answers {
  #manifest;
  #byTask = new Map();

  constructor(manifest) {
    this.#manifest = manifest;
  }

  /**
   * Adds the compared rows of one batch.
   * @param {object} batch of a proof
   * @param {Map} outputs what was found
   */
  add(batch, outputs) {
    const exact = batch.outputs.find(([name]) => name === LOGITS)?.[1];
    const found = outputs.get(LOGITS);
    // the comparison of outputs reports another shape
    if (!exact || !found || String(exact.shape.slice(0, -1)) !== String(found.dims.slice(0, -1))) return;
    const { rows, starts, width } = places(exact.shape, batch);
    rows.forEach((row, place) => {
      if (!batch.compared[row]) return;
      const task = batch.tasks[row];
      const spec = this.#manifest.tasks.find((one) => one.name === task);
      const labels = spec?.labels ?? found.dims.at(-1);
      const sets = spec?.problem_type === MULTI_LABEL;
      const wanted = vector(exact, place, width).slice(0, labels);
      if (labels === 0 || (wanted.length < 2 && !sets)) return;
      const first = (starts[place] / width) * found.dims.at(-1);
      const own = Array.from({ length: Math.min(labels, found.dims.at(-1)) }, (_, i) => found.at(first + i));
      const count = this.#byTask.get(task) ?? { all: 0, same: 0 };
      const agrees = sets ? own.every((value, i) => value > 0 === wanted[i] > 0) : largest(own) === largest(wanted);
      this.#byTask.set(task, { all: count.all + 1, same: count.same + agrees });
    });
  }

  /** The share of a task's answers that are the reference's; null without logits. */
  agreement(task) {
    const count = this.#byTask.get(task);
    return count === undefined ? null : count.same / count.all;
  }
}

/** One place's numbers; of a sample that has only the largest of them, the others are minus infinity. */
function vector({ columns, values, largest: kept }, place, width) {
  if (kept === null) return Array.from(values.slice(place * columns, (place + 1) * columns));
  const wide = new Array(width).fill(-Infinity);
  for (let i = place * kept.count; i < (place + 1) * kept.count; i++) wide[kept.indices[i]] = kept.values[i];
  return wide;
}

/** Where the largest number is, or the first that is none. */
function largest(values) {
  const none = values.findIndex(Number.isNaN);
  return none >= 0 ? none : values.reduce((best, value, i) => (value > values[best] ? i : best), 0);
}
