// From what the runs gave to the report of each task, as validation.json has it.
import { LIMIT, WORST, ratio } from "./distance.js";
import { precise } from "./format.js";
import { BASE, LOGITS, TASK_ID_USED } from "./names.js";

const HEADS = "task_heads";
const MODEL = "model.onnx";

/**
 * One task's report.
 * @param {string} task its name
 * @param {object} manifest of the bundle
 * @param {object} proof
 * @param {object} results of `compare`
 */
export function taskReport(task, manifest, proof, results) {
  const { noise, scale, effect, folded, unclear } = proof;
  const { order } = proof.models;
  const typical = typicalNoise(task, order, proof);
  const own = manifest.precision === "fp16" ? "fp16" : "fp32";
  const measured = (kind, name, errors) => {
    const [e, n, s, f] = [errors, noise, scale, effect].map((spreads) => spreads.of(task, kind, name));
    const seen = f.count ? ratio(f, n, s, own, typical) : null;
    return {
      ratio: ratio(e, n, s, own, typical),
      error: e.rms,
      noise: n.rms,
      scale: s.rms,
      effect: f.count ? f.rms : null,
      effect_ratio: Object.hasOwn(folded, name) ? folded[name] : seen,
    };
  };
  const all = (kind, names, errors) => Object.fromEntries(names.map((name) => [name, measured(kind, name, errors)]));

  const names = scale.names(task, "output");
  const modules = all("module", order, results.error);
  const outputs = all("output", names, results.error);
  const observed = all("output", names, results.observedError);
  const [rows, aside] = results.rows.get(task);
  const tie = (Object.hasOwn(unclear, task) ? unclear[task] : results.ties.get(task)) ?? null;
  const [where, why] = tie === null ? failure(task, manifest, modules, outputs, observed, results) : [null, null];
  const found = [...Object.entries(modules), ...Object.entries(outputs)];
  const [worst, worstMeasured] = found.reduce((most, each) => (each[1].ratio > most[1].ratio ? each : most));
  const effects = found.map(([, one]) => one.effect_ratio).filter((one) => one !== null);
  const report = {
    task,
    adapted: task !== BASE,
    rows,
    rows_set_aside: aside,
    modules,
    outputs,
    tied_at: tie,
    failed_at: where,
    reason: why,
    argmax_agreement: results.answers.agreement(task),
    metric: null,
    greedy: results.answers.greedy(task),
    rounded: rounded(task, names, proof, results),
    worst: { name: worst, ratio: worstMeasured.ratio },
    effect_ratio: rows && task !== BASE && effects.length ? Math.max(...effects) : null,
  };
  report.undecided = undecided(report);
  report.verdict = where !== null ? "fail" : report.undecided !== null ? "undecided" : "pass";
  return report;
}

/** What is wrong with a task, or why nothing is known of it. */
export function sentence({ task, failed_at: where, reason, modules, undecided: why }) {
  if (where === null) return `task ${task} cannot be validated: ${why}`;
  return `task ${task} fails at ${Object.hasOwn(modules, where) ? "first drifting module " : ""}${where}: ${reason}`;
}

/** What rounding activations to 8 bits does to a task's outputs. */
function rounded(task, names, { scale }, { rounds, roundedError, roundedAnswers }) {
  if (!rounds) return null;
  const share = (name) => roundedError.of(task, "output", name).rms / (scale.of(task, "output", name).rms || 1);
  return {
    relative_rms: Object.fromEntries(names.map((name) => [name, share(name)])),
    argmax_agreement: roundedAnswers.agreement(task),
    greedy: roundedAnswers.greedy(task),
  };
}

/** The noise relative to the values: the median over modules. */
function typicalNoise(task, order, { noise, scale }) {
  const sizes = order.map((name) => [noise, scale].map((spreads) => spreads.of(task, "module", name).rms));
  const relative = sizes.filter(([n, s]) => s && Number.isFinite(n) && Number.isFinite(s)).map(([n, s]) => n / s);
  relative.sort((a, b) => a - b);
  const middle = relative.length / 2;
  return relative.length ? (relative[Math.ceil(middle) - 1] + relative[Math.floor(middle)]) / 2 : 0;
}

/** The first module or output that is wrong, in the order of the graph, and what is wrong with it. */
function failure(task, manifest, modules, outputs, observed, { broken, complaints }) {
  if (broken.has(task)) return [MODEL, broken.get(task)];
  const said = (name) => complaints.get(JSON.stringify([task, name]));
  for (const [module, measured] of Object.entries(modules)) {
    const complaint = said(module);
    if (measured.ratio > LIMIT || complaint) return [module, complaint ?? times(measured)];
  }
  if (said(TASK_ID_USED)) return [TASK_ID_USED, said(TASK_ID_USED)];
  for (const [name, measured] of Object.entries(outputs)) {
    if (said(name)) return [name, said(name)];
    if (measured.ratio <= LIMIT) continue;
    if (observed[name].ratio <= LIMIT) {
      return [name, `${times(measured)}, but only without further outputs: ONNX Runtime's optimizer changes it`];
    }
    const ownHeads = name === LOGITS && manifest.tasks.some((spec) => (spec.labels ?? null) !== null);
    const others = Object.entries(outputs).filter(([other]) => other !== name);
    const othersFine = others.length > 0 && others.every(([, other]) => other.ratio <= LIMIT); // what the heads read is right
    return [ownHeads && othersFine ? HEADS : name, times(measured)];
  }
  return [null, null];
}

function times({ ratio: found, noise, error }) {
  if (found >= WORST && !Number.isFinite(noise)) return "the reference itself is infinite or not a number there";
  if (found >= WORST && !Number.isFinite(error)) return "it is infinite or not a number somewhere";
  if (found >= WORST) return "its error is more than 1e30 times the noise floor";
  return `${precise(found)} times the noise floor`;
}

/** Why a pass would say nothing, as a bundle without the adapter would pass too; null if it would not. */
function undecided({ failed_at: where, tied_at: tie, rows, adapted, effect_ratio: effect }) {
  if (where !== null) return null;
  if (tie !== null) return `rounding decides which experts ${tie} uses`;
  if (rows === 0) return "rounding decides what a router chooses for every one of its rows";
  if (adapted && effect !== null && effect <= LIMIT) {
    return `the adapter's own effect is ${precise(effect)} noise floors: too little to be seen`;
  }
  return null;
}
