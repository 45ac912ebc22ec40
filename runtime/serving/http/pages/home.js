// The page of a server: its models, a form to try them, its metrics.

const KINDS = {
  chat: ["Chat", "Message", null],
  prompt: ["Continue a prompt", "Prompt", null],
  classify: ["Classify", "Text", "Second text, for tasks of pairs"],
  answer: ["Answer a question", "Question", "The text that holds the answer"],
  embed: ["Compare embeddings", "Text", "Text to compare with"],
  look: ["Classify an image", null, null],
};
const ALL = ""; // in place of a task: each task that has labels, in one batch
const models = new Map();
let messages = [], running = null;

const told = () => models.get(byId("model").value).parameters;

/** What one may ask of a model, as keys of KINDS. */
function kindsOf({ parameters, outputs }) {
  if (parameters.generates) return parameters.also_takes.includes("text") ? [...(parameters.chats ? ["chat"] : []), "prompt"] : [];
  const { also_takes: takes, also_gives: gives } = parameters;
  if (takes.includes("image")) return gives.includes("label") ? ["look"] : [];
  if (!takes.includes("text")) return [];
  return [
    ...(gives.includes("answer") ? ["answer"] : gives.includes("label") || gives.includes("entities") ? ["classify"] : []),
    ...(outputs.some(({ name }) => name === "embedding") ? ["embed"] : []),
  ];
}

function choose(select, entries, label = (value) => value) {
  select.replaceChildren(...entries.map((value) => element("option", { value }, label(value))));
  select.parentElement.hidden = entries.length < 2;
}

function modelChosen() {
  const kinds = kindsOf(models.get(byId("model").value));
  choose(byId("kind"), kinds, (kind) => KINDS[kind][0]);
  byId("try").hidden = !kinds.length;
  byId("nothing").hidden = Boolean(kinds.length);
  byId("nothing").textContent = "This page has no form for this model: the API's page says what to send it.";
  if (kinds.length) kindChosen();
}

function kindChosen() {
  const kind = byId("kind").value, [, first, second] = KINDS[kind], { tasks, labels } = told();
  const labelled = tasks.filter((task) => task in labels), several = ["classify", "answer", "look"].includes(kind) && labelled.length > 1;
  const writes = ["chat", "prompt"].includes(kind);
  choose(byId("task"), [...(several ? [ALL] : []), ...tasks], (task) => task || "all, in one batch");
  byId("first-part").hidden = first === null;
  byId("first-label").textContent = first ?? "";
  byId("first").required = first !== null;
  byId("image-part").hidden = first !== null;
  byId("image").required = first === null;
  byId("second-part").hidden = second === null;
  byId("second-label").textContent = second ?? "";
  byId("second").required = ["embed", "answer"].includes(kind);
  document.querySelectorAll(".generates").forEach((part) => { part.hidden = !writes; });
  byId("anew").hidden = byId("chat").hidden = kind !== "chat";
  byId("stop").hidden = !writes;
  forget();
}

function forget() {
  messages = [];
  for (const id of ["chat", "answer", "failed"]) byId(id).replaceChildren();
  byId("same").hidden = true;
}

/** The name by which OpenAI's paths know a task of a model. */
const openAIName = () => byId("model").value + (told().tasks.length > 1 ? `:${byId("task").value}` : "");

const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** Sends a request, and shows how to send it from a shell, where a file (its name and its base64) is read anew. */
function send(path, body, file = null) {
  const quoted = shell(JSON.stringify(body, null, 1)), bearer = token.get() ? " -H 'authorization: Bearer TOKEN'" : "";
  const curl = `curl -H 'content-type: application/json'${bearer} ${location.origin}${ROOT}${path} -d`;
  // through a pipe: a photo is too long for an argument
  byId("curl").textContent = file === null ? `${curl} ${quoted}`
    : `printf %s ${quoted.replaceAll(file.base64, () => `'"$(base64 -w0 ${shell(file.name)})"'`)} | ${curl} @-`;
  byId("same").hidden = false;
  return post(path, body, running.signal);
}

async function classify() {
  const { tasks, labels, also_gives: gives } = told(), chosen = byId("task").value;
  const asked = chosen === ALL && tasks.length > 1 ? tasks.filter((task) => task in labels) : [chosen || tasks[0]];
  const column = (name, text) => ({ name, datatype: "BYTES", shape: [asked.length], data: asked.map(() => text) });
  const file = byId("kind").value === "look" ? await encoded(byId("image").files[0]) : null;
  const inputs = [file === null ? column("text", byId("first").value) : column("image", file.base64)];
  if (file === null && byId("second").value) inputs.push(column("text_pair", byId("second").value));
  const wanted = ["label", "score", "scores", "entities", "answer", "task"].filter((name) => gives.includes(name));
  const parameters = tasks.length > 1 ? { tasks: asked } : {};
  const body = { inputs, outputs: wanted.map((name) => ({ name })), parameters };
  const answer = await (await send(`/v2/models/${byId("model").value}/infer`, body, file)).json();
  const found = Object.fromEntries(answer.outputs.map(({ name, data }) => [name, data.flat()]));
  byId("answer").replaceChildren(...asked.map((task, row) => card(task, row, found, asked.length)));
}

/** A file's name and its bytes in base64. */
const encoded = (file) => new Promise((done, failed) => {
  const reader = Object.assign(new FileReader(), { onerror: () => failed(reader.error) });
  reader.onload = () => {
    const base64 = reader.result.split(",")[1];
    if (base64) done({ name: file.name, base64 });
    else failed(new Error("this file is empty"));
  };
  reader.readAsDataURL(file);
});

/** One row's answer: a label with its score, a value, entities, or an answer. */
function card(task, row, found, rows) {
  const names = told().labels[task], problem = told().problem_types[task], inside = [];
  if (found.answer || found.entities) {
    const read = JSON.parse((found.answer ?? found.entities)[row]);
    const spans = (Array.isArray(read) ? read : [read]).filter((span) => Object.keys(span).length);
    inside.push(spans.length ? table("Found", Object.keys(spans[0]), spans.map((span) => Object.values(span).map(plain)))
      : element("div", { className: "result" }, "nothing found"));
  } else {
    const label = problem === "regression" && !Number.isNaN(Number(found.label[row])) ? plain(Number(found.label[row])) : found.label[row];
    inside.push(element("div", { className: "result" }, label));
    const width = (found.scores?.length ?? 0) / rows, own = found.scores?.slice(row * width, (row + 1) * width) ?? [];
    const count = Array.isArray(names) ? names.length : names ?? 0;
    if (problem !== "regression" && problem && count > 1) inside.push(bars(own.slice(0, count), names));
  }
  return element("div", { className: "card" }, element("h3", {}, task), ...inside);
}

const plain = (value) => (typeof value === "number" && !Number.isInteger(value) ? value.toFixed(4) : String(value));

function bars(scores, names) {
  const cells = scores.map((score, at) => {
    const name = Array.isArray(names) ? names[at] : `label ${at}`;
    return [element("span", {}, name), element("meter", { min: 0, max: 1, value: score ?? 0, ariaLabel: name }),
      element("span", {}, score === null ? "-" : score.toFixed(3))];
  });
  return element("div", { className: "bars" }, ...cells.flat());
}

async function embed() {
  const body = { model: openAIName(), input: [byId("first").value, byId("second").value] };
  const [a, b] = (await (await send("/v1/embeddings", body)).json()).data.map(({ embedding }) => embedding);
  const cosine = a.reduce((sum, value, at) => sum + value * b[at], 0);
  byId("answer").replaceChildren(element("div", { className: "card" },
    element("h3", {}, `Cosine of two vectors of ${a.length} numbers`),
    element("div", { className: "result" }, cosine.toFixed(4)),
    element("div", { className: "soft" }, `first: ${a.slice(0, 4).map(plain).join(", ")}, ...`)));
}

const said = (who, text) => element("div", { className: `said ${who}` }, element("b", {}, who), element("span", {}, text));

async function generate(chat) {
  const text = byId("first").value, settings = {
    model: openAIName(), max_tokens: Number(byId("most").value), temperature: Number(byId("temperature").value),
    stream: true, stream_options: { include_usage: true },
  };
  const written = said(chat ? "assistant" : "answer", ""), place = byId(chat ? "chat" : "answer");
  if (chat) place.append(said("user", text), written);
  else place.replaceChildren(written);
  const own = [...messages, { role: "user", content: text }];
  const response = await send(chat ? "/v1/chat/completions" : "/v1/completions", { ...settings, ...(chat ? { messages: own } : { prompt: text }) });
  if (chat) byId("first").value = "";
  let answer = "", usage = null;
  const began = performance.now();
  for await (const event of events(response)) {
    if (event.error) throw new Error(event.error.message);
    const [choice] = event.choices;
    answer += (chat ? choice?.delta?.content : choice?.text) ?? "";
    written.lastChild.textContent = answer;
    usage = event.usage ?? usage;
  }
  if (chat) messages = [...own, { role: "assistant", content: answer }];
  const seconds = (performance.now() - began) / 1000;
  if (usage) written.append(element("small", { className: "soft" },
    ` ${usage.completion_tokens} tokens, ${(usage.completion_tokens / seconds).toFixed(1)} a second`));
}

/** The JSON objects of server-sent events. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ;) {
    const { value, done } = await reader.read();
    const parts = (rest + (value ?? "")).split("\n\n");
    rest = parts.pop();
    for (const part of parts) if (part !== "data: [DONE]") yield JSON.parse(part.replace(/^data: /, ""));
    if (done) return;
  }
}

async function submitted(event) {
  event.preventDefault();
  if (running) return;
  const kind = byId("kind").value;
  running = new AbortController();
  byId("failed").textContent = "";
  byId("send").disabled = true;
  byId("stop").disabled = false;
  try {
    await (kind === "embed" ? embed() : kind in { chat: 1, prompt: 1 } ? generate(kind === "chat") : classify());
  } catch (error) {
    if (error.name !== "AbortError") byId("failed").textContent = error.message;
  } finally {
    running = null;
    byId("send").disabled = false;
    byId("stop").disabled = true;
    await metrics().catch(() => {});
  }
}

/** Series of Prometheus' text: [name, labels, value]. */
function series(text) {
  return [...text.matchAll(/^(\w+)(?:\{(.*)\})? (\S+)$/gm)].map(([, name, labels, value]) => [
    name, Object.fromEntries([...(labels ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, key, own]) => [key, own])), Number(value)]);
}

async function metrics() {
  const all = series(await (await ask("/metrics")).text());
  const of = (name, labels = {}) => all.filter(([own, has]) => own === name && Object.keys(labels).every((key) => has[key] === labels[key]));
  const sum = (...given) => of(...given).reduce((total, [, , value]) => total + value, 0);
  const keys = [...of("eptx_request_seconds_count"), ...of("eptx_generated_tokens_total")]
    .map(([, { model, task, provider }]) => JSON.stringify({ model, task, provider }));
  const tasks = [...new Set(keys)].map(JSON.parse).map((own) => {
    const count = sum("eptx_request_seconds_count", own), mean = (1000 * sum("eptx_request_seconds_sum", own)) / count;
    const total = (name) => String(sum(name, own) || "-"); // of texts no tokens are written, of prompts no rows counted
    return [own.model, own.task, total("eptx_rows_total"), count ? mean.toFixed(1) : "-", total("eptx_generated_tokens_total"), own.provider];
  });
  const failed = of("eptx_requests_total").filter(([, { code }]) => code !== "200")
    .map(([, { model, verb, code }, count]) => [model || "-", verb || "-", code, String(count)]);
  byId("metrics").replaceChildren(
    element("p", {}, `${sum("eptx_requests_total")} requests, ${sum("eptx_queue_rows")} rows waiting.`),
    ...(tasks.length ? [table("Answers by task", ["model", "task", "rows", "mean ms", "tokens written", "on"], tasks)] : []),
    ...(failed.length ? [table("Refused requests", ["model", "path", "status", "requests"], failed)] : []),
  );
}

function describe([name, { parameters }]) {
  const { tasks, labels, method, mode, precision, provider, native_kernels: kernels } = parameters;
  const rows = tasks.map((task) => {
    const own = labels[task];
    return [task, Array.isArray(own) ? own.join(", ") : own ? `${own} labels` : "-", parameters.problem_types[task]?.replaceAll("_", " ") ?? "-"];
  });
  return element("div", { className: "card" }, element("h3", {}, name),
    element("div", {}, `${mode} ${method}, ${precision}, on ${provider}, ${kernels ? "native kernels" : "no native kernels"}`),
    table(`Tasks of ${name}`, ["task", "labels", "kind"], rows));
}

async function show() {
  const server = await (await ask("/v2")).json();
  const index = await (await post("/v2/repository/index", {})).json();
  for (const { name } of index) models.set(name, await (await ask(`/v2/models/${name}`)).json());
  const ready = index.every(({ state }) => state === "READY");
  byId("state").textContent = `${server.name} ${server.version}, ${ready ? "ready" : "not ready"}`;
  byId("state").className = ready ? "good" : "bad";
  byId("models").replaceChildren(...[...models].map(describe));
  choose(byId("model"), [...models.keys()]);
  modelChosen();
  await metrics();
}

byId("model").addEventListener("change", modelChosen);
byId("kind").addEventListener("change", kindChosen);
byId("task").addEventListener("change", forget);
byId("anew").addEventListener("click", forget);
byId("stop").addEventListener("click", () => running?.abort());
byId("refresh").addEventListener("click", () => metrics().catch((error) => { byId("failed").textContent = error.message; }));
byId("try").addEventListener("submit", submitted);
byId("try").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("try").requestSubmit();
});
start(show);
