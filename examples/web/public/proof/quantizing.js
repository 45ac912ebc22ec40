// What a quantized bundle costs, as it was measured where the proof was recorded.
import { percent, precise } from "./format.js";

/** A task with labelled rows may lose so many points where it has no other budget. */
const DEFAULT_POINTS = 10;

export const DROPS = ["task", "metric", "fp32", "bundle", "points lost", "95 %", "budget", "rows", "verdict"];

/** Whether a task's drop is within its budget; null without a budget and without labels. */
export function dropWithin({ budget, points, labelled, low }) {
  if (budget !== null) return points <= budget;
  return labelled ? low <= DEFAULT_POINTS : null;
}

/** One task's cells of `DROPS`. */
export function dropCells({ task, metric, labelled, reference, found, points, low, high, budget, rows, within }) {
  return [
    task,
    labelled ? metric : `${metric} with fp32`,
    reference.toFixed(3),
    found.toFixed(3),
    points.toFixed(2),
    `${low.toFixed(1)} to ${high.toFixed(1)}`,
    budget === null ? "-" : `${budget}`,
    `${rows}`,
    within === null ? "-" : within ? "pass" : "fail",
  ];
}

export function dropSentence({ task, metric, labelled, reference, found, points, low, high, budget, within }) {
  const limit = within === false ? `; without a budget the interval may begin at ${DEFAULT_POINTS}` : "";
  return (
    `${task}: ${metric}${labelled ? "" : " (against the answers of fp32)"} fell ${points.toFixed(2)} points ` +
    `(95 %: ${low.toFixed(1)} to ${high.toFixed(1)}) from ${reference.toFixed(3)} to ${found.toFixed(3)}` +
    (budget === null ? limit : `; the budget is ${budget}`)
  );
}

export function divergenceSentence({ task, output, measure, value, limit, disagreement }) {
  const tokens = measure === "tokens" ? `${precise(value)} nats a token, and ${percent(disagreement)} of the likeliest tokens` : null;
  const size = tokens ?? `${precise(value)} times its size`;
  const other = "(--data and --max-drop give another)";
  return `${task}: quantizing changes ${output} by ${size}; without rows or a budget the limit is ${limit} ${other}`;
}
