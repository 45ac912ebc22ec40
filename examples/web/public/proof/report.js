// What a validation found: an object with the fields of validation.json, and the verdict's one line.
import { LIMIT } from "./distance.js";
import { AUTO } from "./names.js";
import { divergenceSentence, dropSentence, dropWithin } from "./quantizing.js";
import { sentence, taskReport } from "./verdict.js";

const SCHEMA_VERSION = 1;

/**
 * @param {object} manifest of the bundle
 * @param {object} proof
 * @param {string} provider "cpu" or "wasm"
 * @param {object} results of `compare`
 * @param {object[]} checks of the proof, and of what it is bound to
 * @param {Object<string, number>} seconds of each stage
 */
export function makeReport({ manifest, proof, provider, results, checks, seconds }) {
  const tasks = [...results.rows.keys()].map((task) => taskReport(task, manifest, proof, results));
  const operators = manifest.operators ? "functions" : "standard";
  const backend = { provider, operators, nodes: null, passed: !blocking(tasks).length, tasks };
  const { mode, method, model_type, precision, routing = null, fingerprints, generator } = manifest;
  const report = {
    schema_version: SCHEMA_VERSION,
    passed: false,
    reason: null,
    limit: LIMIT,
    proof: proof.generator,
    bundle: {
      ...{ mode, method, model_type, precision, provider: manifest.provider, routing },
      ...{ tasks: manifest.tasks.map((task) => task.name), fingerprints, generator },
    },
    inputs: proof.batches.map(described),
    redrawn: proof.redrawn,
    frozen_from_live: null,
    providers: [backend],
    drops: proof.drops.map((drop) => ({ ...drop, within: dropWithin(drop) })),
    divergences: proof.divergences.map((one) => ({ ...one, within: one.value <= one.limit })),
    warnings: [],
    checks,
    seconds,
  };
  report.reason = reason(report);
  report.passed = report.reason === null;
  return report;
}

/** The name of a backend in reports. */
export function backendName({ provider, operators }) {
  return operators === "standard" ? provider : `${provider}, ${operators}`;
}

/** The tasks for which the bundle is not accepted. An undecided task blocks it, unless the task is inferred. */
function blocking(tasks) {
  const bad = tasks.filter(({ verdict, task }) => verdict === "fail" || (verdict === "undecided" && task !== AUTO));
  return [...bad.filter(({ verdict }) => verdict === "fail"), ...bad.filter(({ verdict }) => verdict !== "fail")];
}

/** The first failure, as one line; null if it passed. */
function reason({ checks, providers: [backend], drops, divergences }) {
  const wrong = checks.filter((check) => check.wrong !== null);
  const bad = blocking(backend.tasks);
  const more = (count, what) => (count > 1 ? ` (and ${count - 1} more ${what})` : "");
  const ran = bad.length ? `provider ${backendName(backend)}: ${sentence(bad[0])}${more(bad.length, "tasks")}` : null;
  // a proof only sees that a file has changed; the run says what that has changed
  if (wrong.length) return `${wrong[0].name}: ${wrong[0].wrong}${more(wrong.length, "checks")}${ran ? `; ${ran}` : ""}`;
  if (ran) return ran;
  const over = [...drops.map((one) => [one, dropSentence]), ...divergences.map((one) => [one, divergenceSentence])];
  const [first, ...others] = over.filter(([one]) => one.within === false).map(([one, said]) => said(one));
  return first === undefined ? null : `${first}${more(others.length + 1, "tasks")}`;
}

/** A batch's name and shape. */
function described({ name, inputs, mask, prompt }) {
  return { name, shape: Object.values(inputs)[0].dims, padded: mask !== null && mask.kept.includes(false), prompt };
}
