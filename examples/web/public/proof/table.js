// The report as text: the cells of its table, and the lines around it.
import { LIMIT } from "./distance.js";
import { percent, precise, scientific } from "./format.js";
import { DROPS, divergenceSentence, dropCells, dropSentence } from "./quantizing.js";
import { backendName } from "./report.js";
import { sentence } from "./verdict.js";

export const HEADER = ["task", "error / noise", "noise floor", "adapter / noise", "argmax", "greedy", "rows", "verdict"];
/** The place in it of what only generators have. */
export const GREEDY = HEADER.indexOf("greedy");

/** One task's cells of `HEADER`. */
export function cells({ task, worst, modules, outputs, effect_ratio: effect, argmax_agreement: agreement, rows, ...rest }) {
  const { noise, scale } = modules[worst.name] ?? outputs[worst.name];
  return [
    task,
    precise(worst.ratio),
    scientific(scale ? noise / scale : 0),
    effect === null ? "-" : precise(effect),
    agreement === null ? "-" : percent(agreement),
    rest.greedy === null ? "-" : `${percent(rest.greedy.agreement)} of ${rest.greedy.tokens}`,
    rest.rows_set_aside ? `${rows} (+${rest.rows_set_aside} tied)` : `${rows}`,
    rest.verdict,
  ];
}

/** What is said of tasks that do not pass. */
export function complaints({ tasks }) {
  return tasks.filter((task) => task.verdict !== "pass").map((task) => `${task.verdict}: ${sentence(task)}`);
}

/** What counts for no verdict: where greedy tokens first differ, and what rounded activations change. */
export function notes({ tasks }) {
  return tasks.flatMap(({ task, greedy, rounded }) => {
    const lines = [];
    const first = greedy?.first_disagreement;
    if (first) {
      lines.push(
        `${task}: the first greedy token that differs is number ${first.token + 1} of ${first.batch}, row ${first.row}: ` +
          `the reference prefers its own by ${precise(first.margin, 2)}`,
      );
    }
    if (rounded !== null) {
      const most = precise(Math.max(...Object.values(rounded.relative_rms)), 2);
      const said = rounded.greedy === null ? "" : `, greedy tokens agree in ${percent(rounded.greedy.agreement)}`;
      lines.push(`${task}: activations of 8 bits, as shipped, change the outputs by ${most} of their size${said}`);
    }
    return lines;
  });
}

/** What was not compared, or is not as it was, and how many parts were compared. */
export function checkLines(checks) {
  const count = (how) => checks.filter((check) => check.how === how).length;
  return [
    ...checks.filter((check) => check.wrong !== null).map((check) => `fail: ${check.name}: ${check.wrong}`),
    ...checks.filter((check) => check.how === "unchecked").map((check) => `not checked: ${check.name}: ${check.why}`),
    `checks: ${["compared", "run", "unchecked"].map((how) => `${count(how)} ${how}`).join(", ")}`,
  ];
}

/** How the bundle did on a backend, in one line. */
export function summary(backend) {
  return `${backendName(backend)}: ${backend.passed ? "passed" : "failed"}; ${worstPlace(backend)}`;
}

/** Where the bundle is furthest from the trained model. */
export function worstPlace({ tasks }) {
  const { task, worst } = tasks.reduce((most, each) => (each.worst.ratio > most.worst.ratio ? each : most));
  return `worst ${precise(worst.ratio)} of ${LIMIT} noise floors, task ${task}, ${worst.name}`;
}

/** How long it took, and each stage. */
export function took(seconds) {
  const sum = Object.values(seconds).reduce((all, one) => all + one, 0);
  return `took ${sum.toFixed(1)} s: ${Object.entries(seconds).map(([stage, one]) => `${stage} ${one.toFixed(1)}`).join(", ")}`;
}

/** What quantizing costs, where the proof was recorded. */
export function divergenceLines(divergences) {
  return divergences.map((one) => `${one.within ? "pass" : "fail"}: ${divergenceSentence(one)}`);
}

function dropLines(drops) {
  if (!drops.length) return [];
  const over = drops.filter((one) => one.within === false).map((one) => `fail: ${dropSentence(one)}`);
  const mean = drops.reduce((sum, { points }) => sum + points, 0) / drops.length;
  const sum = `quantizing loses ${mean.toFixed(2)} points on average of ${drops.length} tasks`;
  return [...aligned([DROPS, ...drops.map(dropCells)]), ...over, sum];
}

/** The whole report for a terminal. */
export function reportText({ providers: [backend], drops, divergences, checks, seconds }) {
  return [
    `${backendName(backend)}:`,
    ...aligned([backend.tasks.some((task) => task.greedy !== null) ? HEADER : HEADER.with(GREEDY, "metric"), ...backend.tasks.map(cells)]),
    ...notes(backend),
    ...complaints(backend),
    ...dropLines(drops),
    ...divergenceLines(divergences),
    ...checkLines(checks),
    took(seconds),
    summary(backend),
  ].join("\n");
}

function aligned(rows) {
  const widths = rows[0].map((_, i) => Math.max(...rows.map((row) => row[i].length)));
  return rows.map((row) => row.map((cell, i) => cell.padEnd(widths[i])).join("  ").trimEnd());
}
