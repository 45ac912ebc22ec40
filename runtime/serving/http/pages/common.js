"use strict";
// What both pages share. Everything that a server or a model says is put in as text, never as markup.

// the server may stand below a prefix
const ROOT = location.pathname.replace(/\/(docs\/?)?$/, "");

/** An element with properties and children; texts become text nodes. */
function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const byId = (id) => document.getElementById(id);

/** A table in a box that scrolls by itself; the first cell of a row is its heading. */
function table(label, header, rows) {
  const head = element("tr", {}, ...header.map((text) => element("th", { scope: "col" }, text)));
  const body = rows.map(([first, ...cells]) =>
    element("tr", {}, element("th", { scope: "row" }, first), ...cells.map((cell) => element("td", {}, cell))));
  const made = element("table", {}, element("caption", {}, label), element("thead", {}, head), element("tbody", {}, ...body));
  return element("div", { className: "box", tabIndex: 0, role: "region", ariaLabel: label }, made);
}

const token = {
  get: () => sessionStorage.getItem("eptx-token") ?? "",
  set: (value) => sessionStorage.setItem("eptx-token", value),
};

/** Asks the server; an answer that is not 200 is thrown with its own line. Where a token is missing, its form is shown. */
async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (token.get()) headers.Authorization = `Bearer ${token.get()}`;
  const response = await fetch(ROOT + path, { ...options, headers });
  if (response.status === 401) byId("token-form").hidden = false;
  if (response.ok) return response;
  const said = await response.json().catch(() => ({}));
  throw new Error(said.error?.message ?? said.error ?? `the server answered ${response.status}`);
}

const post = (path, body, signal) =>
  ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal });

/** Shows the page, and again once a token is given. */
function start(show) {
  document.querySelectorAll("a[data-path]").forEach((link) => { link.href = ROOT + link.dataset.path; });
  const tried = () => show().catch((error) => {
    byId("state").textContent = error.message;
    byId("state").className = "bad";
  });
  byId("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    token.set(byId("token").value);
    byId("token-form").hidden = true;
    tried();
  });
  tried();
}
