// The API of a server, from its own OpenAPI description.

const json = (value) => element("pre", { tabIndex: 0 }, JSON.stringify(value, null, 1));

function parameterTable(parameters) {
  const rows = parameters.map(({ name, in: place, required, schema }) => [name, place, required ? "yes" : "no", limits(schema)]);
  return table("Parameters", ["name", "in", "required", "values"], rows);
}

const limits = ({ type, enum: values, minimum, maximum }) =>
  values ? values.join(", ") : [type, minimum !== undefined ? `${minimum} to ${maximum}` : ""].filter(Boolean).join(", ");

/** The media types of a body, each with its schema where it has one. */
const contents = (content) => Object.entries(content).flatMap(([type, { schema }]) =>
  [element("p", {}, element("code", {}, type)), ...(schema ? [json(schema)] : [])]);

function operation(path, method, { summary, parameters, requestBody, responses }) {
  const { 200: done, ...refused } = responses;
  return element("details", { className: "operation", id: `${method}${path}` },
    element("summary", {}, element("span", { className: "method" }, method.toUpperCase()), element("code", {}, path),
      element("span", { className: "soft" }, summary)),
    ...(parameters.length ? [element("h3", {}, "Parameters"), parameterTable(parameters)] : []),
    ...(requestBody ? [element("h3", {}, requestBody.required ? "Body" : "Body, optional"), ...contents(requestBody.content)] : []),
    element("h3", {}, "Answer"), ...contents(done.content),
    ...(Object.keys(refused).length ? [element("h3", {}, "Refusals"),
      table("Refusals", ["status", "why"], Object.entries(refused).map(([code, { description }]) => [code, description]))] : []));
}

async function show() {
  const { info, paths, security } = await (await ask("/openapi.json")).json();
  byId("state").textContent = `${info.title} ${info.version}${security ? ", asks for a token" : ""}`;
  byId("paths").replaceChildren(...Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, told]) => operation(path, method, told))));
}

start(show);
