// Logits as answers: how often the bundle's are the reference's.
import { ANSWER_IDS, LOGITS } from "./names.js";
import { places } from "./sample.js";

const MULTI_LABEL = "multi_label_classification";

/** Counts, per task, how many answers agree, and how many tokens that a generator would choose. */
export class Answers {
  #manifest;
  #byTask = new Map();
  #greedy = new Map();

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
    const has = found.dims.at(-1);
    const own = (at, count) => Array.from({ length: Math.min(count, has) }, (_, i) => found.at(at * has + i));
    const byPosition = new Map();
    rows.forEach((row, place) => {
      if (!batch.compared[row]) return;
      const at = starts[place] / width;
      byPosition.set(at, place);
      const spec = this.#manifest.tasks.find((one) => one.name === batch.tasks[row]);
      const labels = spec?.labels ?? has;
      const sets = spec?.problem_type === MULTI_LABEL;
      const wanted = vector(exact, place, width).slice(0, labels);
      if (labels > 0 && (wanted.length > 1 || sets)) this.#count(batch.tasks[row], own(at, labels), wanted, sets);
    });
    if (!batch.greedy) return;
    batch.tasks.forEach((task, row) => {
      if (!batch.compared[row]) return;
      chosenAt(batch, row).forEach((position, token) => {
        const at = row * batch.length + position;
        this.#choose(task, own(at, has), vector(exact, byPosition.get(at), width), { batch: batch.name, row, token });
      });
    });
  }

  /** The share of a task's answers that are the reference's; null without logits. */
  agreement(task) {
    const count = this.#byTask.get(task);
    return count === undefined ? null : count.same / count.all;
  }

  /** How far a task's greedy tokens agree; null without any. */
  greedy(task) {
    const count = this.#greedy.get(task);
    if (count === undefined) return null;
    return { tokens: count.tokens, agreement: count.equal / count.tokens, first_disagreement: count.first };
  }

  #count(task, own, wanted, sets) {
    const count = this.#byTask.get(task) ?? { all: 0, same: 0 };
    const agrees = sets ? own.every((value, i) => value > 0 === wanted[i] > 0) : largest(own) === largest(wanted);
    this.#byTask.set(task, { all: count.all + 1, same: count.same + agrees });
  }

  #choose(task, own, wanted, where) {
    const { tokens, equal, first } = this.#greedy.get(task) ?? { tokens: 0, equal: 0, first: null };
    const [reference, bundle] = [largest(wanted), largest(own)];
    const differs = reference !== bundle;
    const found = differs ? { ...where, reference, bundle, margin: wanted[reference] - wanted[bundle] } : null;
    this.#greedy.set(task, { tokens: tokens + 1, equal: equal + !differs, first: first ?? found });
  }
}

/** The positions of a row whose logits choose a token: the prompt's last, and those of all tokens but the last. */
function chosenAt({ inputs, mask, prompt, length }, row) {
  // an answer begins with as many tokens in every row
  const read = ANSWER_IDS in inputs || mask === null ? null : mask.kept.slice(row * length, row * length + prompt);
  const last = read === null ? prompt - 1 : read.lastIndexOf(true);
  return [last, ...Array.from({ length: Math.max(0, length - 1 - prompt) }, (_, i) => prompt + i)];
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
