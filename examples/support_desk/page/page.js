// Sends a message to the desk and shows what comes back. Texts enter the page as text, never as markup.

/** What each task is asked. */
const TASKS = {
  sst2: "sentiment of the message",
  stsb: "similarity to a known question",
  mrpc: "is it the same question?",
  qnli: "does a policy answer it?",
  mnli: "does a policy support it?",
};
const VERDICTS = {
  silent: "none is about this",
  concerns: "may answer this",
  supports: "supports this",
  neutral: "is about this, but does not decide it",
  contradicts: "contradicts this",
};

const find = (selector) => document.querySelector(selector);
const percent = (share) => `${Math.round(100 * share)} %`;

/** A new element with attributes and children: other elements, or texts. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  Object.assign(element, attributes);
  element.append(...children);
  return element;
}

/** A bar that is full at 1. */
function bar(name, shown, share, kind = "") {
  const fill = make("i");
  fill.style.width = `${100 * share}%`;
  const track = make("div", { className: `track ${kind}` }, fill);
  return make("div", { className: "bar" }, make("span", {}, name), make("span", {}, shown), track);
}

function showMood(positive) {
  find("#mood b").textContent = positive < 0.5 ? `negative ${percent(1 - positive)}` : `positive ${percent(positive)}`;
  find("#mood").dataset.kind = positive < 0.35 ? "bad" : positive > 0.65 ? "good" : "";
  find("#mood .scale i").style.left = `${100 * positive}%`;
}

function showQuestion([best, ...others]) {
  find("#question b").textContent = best.match < 0.5 ? "the closest, not sure" : "this one";
  find("#question").dataset.kind = best.match < 0.5 ? "" : "good";
  find("#question h3").textContent = best.question;
  find("#question .reply").textContent = best.answer;
  find("#question .bars").replaceChildren(
    bar("similarity", `${best.similarity.toFixed(1)} of 5`, best.similarity / 5),
    bar("same question", percent(best.same), best.same),
  );
  const lines = others.slice(0, 2).map(({ question, similarity, same }) =>
    make("li", {}, question, make("span", { className: "soft" }, `${similarity.toFixed(1)} of 5, ${percent(same)}`)));
  find("#question ul").replaceChildren(...lines);
}

function showPolicy({ policy, verdict, about, supports, neutral, contradicts }) {
  find("#policy b").textContent = VERDICTS[verdict];
  find("#policy").dataset.kind = { supports: "good", concerns: "good", contradicts: "bad" }[verdict] ?? "";
  find("#policy blockquote").textContent = policy;
  find("#policy blockquote").classList.toggle("faded", verdict === "silent");
  const bars = [bar("is about the message", percent(about), about)];
  if (!["silent", "concerns"].includes(verdict)) {
    bars.push(
      bar("supports it", percent(supports), supports, "good"),
      bar("neither", percent(neutral), neutral, "quiet"),
      bar("contradicts it", percent(contradicts), contradicts, "bad"),
    );
  }
  find("#policy .bars").replaceChildren(...bars);
}

function showBatch({ rows, tasks, milliseconds }) {
  const names = Object.keys(tasks);
  find("#batch b").textContent = `${rows} rows of ${names.length} tasks in ${Math.round(milliseconds)} ms`;
  const cells = names.flatMap((name) => Array.from({ length: tasks[name] }, () => make("i", { className: name })));
  find("#cells").replaceChildren(...cells);
  const lines = names.map((name) =>
    make("li", {}, make("i", { className: name }), make("code", {}, name), make("span", {}, `${tasks[name]} × ${TASKS[name]}`)));
  find("#tasks").replaceChildren(...lines);
}

function show(answer) {
  showMood(answer.positive);
  showQuestion(answer.questions);
  showPolicy(answer.policies[0]);
  showBatch(answer.batch);
}

async function answered(message) {
  const response = await fetch("ask", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ message }),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

async function send() {
  const message = find("#message").value.trim();
  if (!message || find("#send").disabled) return;
  find("#send").disabled = true;
  find("#results").setAttribute("aria-busy", "true");
  let failure = "";
  try {
    show(await answered(message));
  } catch (error) {
    failure = `The desk cannot answer: ${error.message}`;
  }
  find("#hint").hidden = true;
  find("#error").textContent = failure;
  find("#error").hidden = !failure;
  find("#cards").hidden = Boolean(failure);
  find("#results").removeAttribute("aria-busy");
  find("#send").disabled = false;
}

function pick(message) {
  find("#message").value = message;
  send();
}

find("#form").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
find("#message").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});

const shop = await (await fetch("shop.json")).json();
find("#shop").textContent = shop.name;
document.title = `${shop.name}: support desk`;
find("#samples").append(
  ...shop.messages.map((message) => make("button", { type: "button", onclick: () => pick(message) }, message)));
