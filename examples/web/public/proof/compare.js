// Runs the bundle as it is shipped and its observed copy, and compares both with what is proved.
import { Answers } from "./answers.js";
import { Spreads } from "./distance.js";
import { Failure } from "./failure.js";
import { FLOAT, OBSERVED, SHIPPED, open } from "./model.js";
import { AUTO, BASE, TASK_ID_USED } from "./names.js";
import { feature, places } from "./sample.js";
import { like, padded } from "./values.js";

/**
 * What all runs gave; comparison/verdict.py has the same as `RunResults`.
 * @param {object} runtime see `openGraph`
 * @param {object} bundle {manifest, files}
 * @param {object} proof
 * @param {(stage: string, done: number, all: number) => void} progress in batches
 */
export async function compare(runtime, bundle, proof, progress) {
  const { manifest } = bundle;
  const { floatActivations, encoder } = proof.models;
  const results = {
    error: new Spreads(),
    observedError: new Spreads(),
    roundedError: new Spreads(),
    answers: new Answers(manifest),
    roundedAnswers: new Answers(manifest),
    complaints: new Map(),
    ties: new Map(),
    rows: new Map(),
    broken: new Map(),
    rounds: (floatActivations ?? encoder?.floatActivations ?? null) !== null,
  };
  const inside = proof.batches.filter((batch) => batch.inside);
  const plan = [
    ["running the bundle as shipped", results.rounds ? FLOAT : SHIPPED, proof.batches, outputsOf],
    ...(results.rounds ? [["running the bundle with rounded activations", SHIPPED, proof.batches, roundedOf]] : []),
    ["running the bundle observed", OBSERVED, inside, insideOf],
  ];
  const all = plan.reduce((sum, [, , batches]) => sum + batches.length, 0);
  let done = 0;
  countRows(proof, results);
  for (const [stage, how, batches, look] of plan) {
    progress(stage, done, all);
    const model = await open(runtime, bundle, proof, how);
    for (const batch of batches) {
      await failuresNoted(batch, results, async () => look(batch, await model.run(batch)));
      progress(stage, ++done, all);
    }
    await model.close();
  }
  return results;

  function outputsOf(batch, { outputs }) {
    compareOutputs(results.error, batch, outputs, results);
    checkTasks(batch, outputs, results);
    results.answers.add(batch, outputs);
  }

  /** As it is shipped, with activations rounded to 8 bits: reported, but without an influence on the verdict. */
  function roundedOf(batch, { outputs }) {
    compareOutputs(results.roundedError, batch, outputs, results);
    results.roundedAnswers.add(batch, outputs);
  }

  function insideOf(batch, { outputs, modules, routes }) {
    compareOutputs(results.observedError, batch, outputs, results);
    compareValues(results.error, "module", batch, modules, batch.modules, results);
    for (const chosen of routes) checkExperts(proof.experts, batch, chosen, results);
    routes.forEach((chosen, call) => checkGroups(batch, batch.groups[call] ?? {}, chosen, results));
  }
}

function countRows(proof, { rows }) {
  for (const { tasks, compared } of proof.batches) {
    tasks.forEach((task, row) => {
      const [counted, aside] = rows.get(task) ?? [0, 0];
      rows.set(task, [counted + compared[row], aside + !compared[row]]);
    });
  }
}

/** A batch that cannot be compared has an infinite error; the other batches are still compared. */
async function failuresNoted(batch, { broken, error }, run) {
  try {
    await run();
  } catch (failure) {
    if (!(failure instanceof Failure)) throw failure;
    for (const task of new Set(batch.tasks)) {
      if (!broken.has(task)) broken.set(task, `on the batch '${batch.name}', ${failure.message}`);
      for (const [name] of batch.outputs) error.of(task, "output", name).add(Infinity);
    }
  }
}

function compareOutputs(spreads, batch, outputs, results) {
  compareValues(spreads, "output", batch, outputs, [...batch.outputs, ...batch.inner], results);
}

/** Adds the bundle's distance from the float64 model to each task's spread, by module or output. */
function compareValues(spreads, kind, batch, found, exact, results) {
  const fit = kind === "output" ? padded : like;
  for (const [name, wanted] of exact.filter(([name]) => found.has(name))) {
    const fitted = fit(found.get(name), wanted.shape);
    for (const task of new Set(batch.tasks)) {
      if (fitted === null) {
        const [has, gives] = [found.get(name).dims, wanted.shape].map((shape) => `[${shape.join(", ")}]`);
        complain(results, task, name, `has shape ${has}; the trained model gives ${gives}`);
        continue;
      }
      const spread = spreads.of(task, kind, name);
      addErrors(spread, fitted.same, wanted, batch, task);
      if (fitted.more?.dims.at(-1)) addAll(spread, fitted.more, batch, task);
    }
  }
}

/** Adds what was found less what is exact, where the sample has numbers, of a task's compared rows. */
function addErrors(spread, found, { shape, columns, values }, batch, task) {
  const { rows, starts, width } = places(shape, batch);
  rows.forEach((row, n) => {
    if (batch.tasks[row] !== task || !batch.compared[row]) return;
    for (let j = 0; j < columns; j++) {
      const exact = values[n * columns + j];
      if (Number.isNaN(exact)) continue; // the proof leaves it out
      spread.add(found.at(starts[n] + feature(n, j, columns, width)) - exact);
    }
  });
}

function addAll(spread, found, batch, task) {
  const { rows, starts, width } = places(found.dims, batch);
  rows.forEach((row, n) => {
    if (batch.tasks[row] !== task || !batch.compared[row]) return;
    for (let j = 0; j < width; j++) spread.add(found.at(starts[n] + j));
  });
}

function complain({ complaints }, task, name, message) {
  const key = JSON.stringify([task, name]);
  if (!complaints.has(key)) complaints.set(key, message);
}

/** Of rows whose task is inferred, that it is the reference's. */
function checkTasks(batch, outputs, results) {
  const used = outputs.get(TASK_ID_USED);
  if (used === undefined) return;
  batch.tasks.forEach((task, row) => {
    const [found, wanted] = [used.at(row), batch.ids[row]];
    if (task !== AUTO || !batch.compared[row] || found === wanted) return;
    complain(results, AUTO, TASK_ID_USED, `infers task ${found}; the reference infers ${wanted}`);
  });
}

/** EPT: of rows whose task was named, that the experts are the reference's. */
function checkExperts(tables, batch, chosen, results) {
  for (const { module, experts, tied } of tables) {
    const route = chosen.get(module);
    if (route === undefined || route.dims.length !== 2) continue; // TuckA's routes are [n]
    const [rows, count] = route.dims;
    batch.tasks.forEach((task, row) => {
      const wanted = experts[batch.ids[row]];
      if (wanted === undefined || !batch.compared[row] || task === AUTO) return;
      const own = rows === 1 ? 0 : row;
      const found = route.numbers.slice(own * count, (own + 1) * count).sort((a, b) => a - b);
      if (String(found) === String(wanted)) return;
      if (!tied[batch.ids[row]]) {
        const message = `its router chooses experts ${found.join(" and ")}; the reference chooses ${wanted.join(" and ")}`;
        complain(results, task, module, message);
      } else if (!results.ties.has(task)) results.ties.set(task, module);
    });
  }
}

/** TuckA: that every module's group is the reference's. */
function checkGroups(batch, wanted, chosen, results) {
  for (const [module, groups] of Object.entries(wanted)) {
    const route = chosen.get(module);
    if (route === undefined || route.dims.length !== 1) continue;
    batch.tasks.forEach((task, row) => {
      const [found, wanted] = [route.numbers, groups].map((each) => each[each.length === 1 ? 0 : row]);
      if (found === wanted || wanted < 0 || !batch.compared[row] || task === BASE) return;
      complain(results, task, module, `its route is group ${found}; the reference's is group ${wanted}`);
    });
  }
}
