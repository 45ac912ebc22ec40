// The page that validates: shows what the worker says, and its report as a table.
import { element } from "./element.js";
import { LOADING } from "./proof/bundle.js";
import { backendName } from "./proof/report.js";
import { GREEDY, HEADER, cells, checkLines, complaints, divergenceLines, notes, took, worstPlace } from "./proof/table.js";

const find = (id) => document.getElementById(id);
const megabytes = (bytes) => (bytes / 1e6).toFixed(1);

function showProgress([stage, done, all]) {
  const counted = stage === LOADING ? `${megabytes(done)} of ${megabytes(all)} MB` : `batch ${Math.min(done + 1, all)} of ${all}`;
  find("progress").value = done / all;
  find("status").textContent = `${stage[0].toUpperCase()}${stage.slice(1)}: ${counted}`;
}

function row(task, shown) {
  const own = cells(task);
  const made = shown.map(([name, i]) => {
    const cell = element("td", { className: name === "verdict" ? own[i] : "" }, own[i]);
    cell.dataset.name = name;
    return cell;
  });
  return element("tr", {}, ...made);
}

function showReport(report) {
  const [backend] = report.providers;
  const [heading, line] = find("verdict").children;
  find("verdict").className = report.passed ? "passed" : "failed";
  heading.textContent = report.passed ? "Passed" : "Failed";
  line.textContent = report.reason ?? `${backendName(backend)}: ${worstPlace(backend)}`;
  const generates = backend.tasks.some((task) => task.greedy !== null);
  const shown = HEADER.map((name, i) => [name, i]).filter(([, i]) => generates || i !== GREEDY);
  const names = shown.map(([name]) => element("th", { scope: "col" }, name));
  find("by-task").tHead.replaceChildren(element("tr", {}, ...names));
  find("by-task").tBodies[0].replaceChildren(...backend.tasks.map((task) => row(task, shown)));
  const costs = divergenceLines(report.divergences);
  const lines = [...complaints(backend), ...notes(backend), ...costs, ...checkLines(report.checks), took(report.seconds)];
  find("lines").replaceChildren(...lines.map((text) => element("li", {}, text)));
  find("report").hidden = false;
  find("loading").hidden = true;
}

function fail(message) {
  find("loading").className = "failed";
  find("progress").hidden = true;
  find("status").textContent = message;
}

// A run takes seconds in which a page could not even be scrolled, so it has a thread of its own.
const worker = new Worker("proof-worker.js", { type: "module" });
worker.addEventListener("error", () => fail("the validation does not start in this browser"));
worker.addEventListener("message", ({ data: { progress, report, error } }) => {
  if (progress) showProgress(progress);
  else if (report) showReport(report);
  else fail(error);
});
