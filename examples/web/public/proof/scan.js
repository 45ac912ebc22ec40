// What a graph asks for, read without trusting it: the files that hold its weights, the operators and their domains.
//
// ONNX Runtime opens files by the names that a graph has. It reads the graph with a protocol-buffer library, which drops,
// overwrites and merges fields; a graph with such a field is refused, so that both see the same.
import { Failure } from "./failure.js";
import { OUTSIDE } from "./names.js";

const [NUMBER, BYTES] = [0, 2]; // wire types
const [FIELDS, TEXT, DEPTH] = [2_000_000, 4096, 200];
/** Domains that ONNX Runtime implements, and the one whose operators are functions of the model. */
const DOMAINS = ["", "ai.onnx", "ai.onnx.ml", "com.microsoft", "ai.eptx"];
/** Opens a file by name. */
const REFUSED = ["com.microsoft", "EPContext"];

// Field numbers are those of onnx.proto (https://github.com/onnx/onnx, Apache-2.0).
/** Message -> field -> the message in it. */
const CHILDREN = {
  Model: { 7: "Graph", 8: "Opset", 20: "Training", 25: "Function" },
  Training: { 1: "Graph", 2: "Graph" },
  Graph: { 1: "Node", 5: "Tensor", 15: "Sparse" },
  Node: { 5: "Attribute" },
  Attribute: { 5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse" },
  Sparse: { 1: "Tensor", 2: "Tensor" },
  Tensor: { 13: "Entry" },
  Function: { 7: "Node", 9: "Opset", 11: "Attribute" },
};
/** Message -> field -> what its text or number is. */
const SCALARS = {
  Opset: { 1: "domain", 2: "version" },
  Node: { 4: "type", 7: "domain" },
  Function: { 1: "name", 10: "domain" },
  Entry: { 1: "key", 2: "value" },
};
/** Messages of which there is one. */
const SINGLE = { Model: [7], Training: [1, 2], Attribute: [5, 6, 22], Sparse: [1, 2] };

class Damaged extends Error {}

/**
 * Refuses a graph, or a part of one, that reads or runs what a bundle's graph may not.
 * @param {string} name the file that it stands for
 * @param {Uint8Array} bytes a serialized ModelProto
 * @param {Object<string, {size: number}>} files of eptx.json
 */
export function checkGraph(name, bytes, files) {
  const { domains, operators, functions, external } = scanned(name, bytes);
  const own = new Set(functions.map(([domain]) => domain));
  const unknown = [...domains].sort().find((domain) => !DOMAINS.includes(domain) && !own.has(domain));
  if (unknown !== undefined) throw new Failure(`${name}: uses operators of the unknown domain '${unknown}'`);
  const refused = operators.some((operator) => operator.every((part, i) => part === REFUSED[i]));
  if (refused) throw new Failure(`${name}: uses ${REFUSED[1]}, which opens files by name`);
  const folder = name.slice(0, name.lastIndexOf("/") + 1);
  for (const { location, offset, length } of external) {
    const file = folder + location;
    if (OUTSIDE.test(location) || !Object.hasOwn(files, file)) {
      throw new Failure(`${name}: keeps weights in '${location}', which is not a file of the bundle`);
    }
    const { size } = files[file];
    if (offset + (length ?? 0n) > BigInt(size)) throw new Failure(`${name}: a weight lies past the end of ${file} (${size} bytes)`);
  }
}

function scanned(name, bytes) {
  try {
    return scan(bytes);
  } catch (error) {
    if (error instanceof Damaged) throw new Failure(`${name}: not an ONNX model: ${error.message}`);
    throw error;
  }
}

/**
 * What a graph asks for.
 * @param {Uint8Array} bytes
 * @returns {{domains: Set<string>, operators: string[][], functions: string[][], external: object[]}} operators and functions
 *   as [domain, name]; {location, offset, length} of every weight in another file, length null: to its end
 */
export function scan(bytes) {
  if (String.fromCharCode(...bytes.subarray(4, 8)) === "ORTM") throw new Damaged("it is in the format of ONNX Runtime");
  const found = { domains: new Set(), operators: [], functions: [], external: [], graphs: 0 };
  const open = [message("Model", bytes, 0, bytes.length)]; // a list of its own: nesting exhausts no stack
  let left = FIELDS;
  while (open.length) {
    const one = open.at(-1);
    const { value: field, done } = one.fields.next();
    if (done) {
      keep(found, open.pop());
      continue;
    }
    if (--left < 0) throw new Damaged(`more than ${FIELDS} fields`);
    const [child, text] = [CHILDREN[one.kind]?.[field.number], SCALARS[one.kind]?.[field.number]];
    if (child === undefined && text === undefined) continue;
    check(one, field);
    if (text !== undefined) one.scalars[text] = field.wire === NUMBER ? "" : textOf(bytes, field);
    else if (child === "Entry") one.entries.push(entry(bytes, field));
    else open.push(message(child, bytes, field.start, field.end));
    found.graphs += child === "Graph";
    if (open.length > DEPTH) throw new Damaged(`nested more than ${DEPTH} deep`);
  }
  if (!found.graphs) throw new Damaged("it holds no graph");
  return found;
}

function message(kind, bytes, start, end) {
  return { kind, fields: fields(bytes, start, end), scalars: {}, entries: [], seen: new Set() };
}

/** Refuses a field that matters and that protocol-buffer libraries drop, overwrite or merge. */
function check({ kind, seen }, { number, wire }) {
  const wanted = kind === "Opset" && number === 2 ? NUMBER : BYTES;
  if (wire !== wanted) throw new Damaged(`field ${number} of a message ${kind} has wire type ${wire}, not ${wanted}`);
  if (seen.has(number)) throw new Damaged(`field ${number} of a message ${kind} comes twice`);
  if (SCALARS[kind]?.[number] !== undefined || SINGLE[kind]?.includes(number)) seen.add(number);
}

function keep(found, { kind, scalars, entries }) {
  const { domain = "", type = "", name = "" } = scalars;
  if (kind === "Opset" || kind === "Node") found.domains.add(domain);
  if (kind === "Node") found.operators.push([domain, type]);
  if (kind === "Function") found.functions.push([domain, name]);
  if (kind === "Tensor" && entries.length) found.external.push(...weights(entries));
}

/** One weight for each location: readers differ on which of several counts. */
function weights(entries) {
  const numbers = {};
  for (const { key = "", value = "" } of entries) {
    if (key !== "offset" && key !== "length") continue;
    if (key in numbers || !/^[0-9]{1,19}$/.test(value)) throw new Damaged(`a weight's ${key} is not one number`);
    numbers[key] = BigInt(value);
  }
  const locations = entries.filter(({ key }) => key === "location").map(({ value = "" }) => value);
  return (locations.length ? locations : [""]).map((location) => ({
    location,
    offset: numbers.offset ?? 0n,
    length: numbers.length ?? null,
  }));
}

function entry(bytes, { start, end }) {
  if (end - start > 2 * TEXT) throw new Damaged("a weight's file name is too long");
  const one = message("Entry", bytes, start, end);
  for (const field of one.fields) {
    const name = SCALARS.Entry[field.number];
    if (name === undefined) continue;
    check(one, field);
    one.scalars[name] = textOf(bytes, field);
  }
  return one.scalars;
}

function textOf(bytes, { start, end }) {
  if (end - start > TEXT) throw new Damaged("a name is too long");
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes.subarray(start, end));
  } catch {
    throw new Damaged("a name is not UTF-8");
  }
}

/** The fields of one message: number, wire type, first and last (exclusive) byte of the content. */
function* fields(bytes, at, end) {
  while (at < end) {
    const wire = bytes[at] & 7;
    const tag = varint(bytes, at, end);
    const number = Math.floor(tag.value / 8);
    at = tag.at;
    if (number === 0 || number >= 2 ** 29) throw new Damaged(`field number ${number} at byte ${at}`);
    let size = { 1: 8, 5: 4 }[wire];
    if (wire === NUMBER) size = varint(bytes, at, end).at - at;
    else if (wire === BYTES) ({ value: size, at } = varint(bytes, at, end));
    else if (size === undefined) throw new Damaged(`wire type ${wire} at byte ${at}`);
    if (size > end - at) throw new Damaged(wire === BYTES ? `the content at byte ${at} ends past its message` : "it ends inside a number");
    yield { number, wire, start: at, end: at + size };
    at += size;
  }
}

/** A number of 64 bits, rounded where it has more than 53, and where it ends. */
function varint(bytes, at, end) {
  let value = 0;
  for (let shift = 0; shift < 70; shift += 7) {
    if (at >= end) throw new Damaged("it ends inside a number");
    const byte = bytes[at++];
    value += (byte & (shift === 63 ? 1 : 0x7f)) * 2 ** shift;
    if (byte < 0x80) return { value, at };
  }
  throw new Damaged(`a number of more than 10 bytes at byte ${at}`);
}
