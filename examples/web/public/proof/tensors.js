// The file of a proof: a safetensors file of one JSON object and some arrays, with a digest of both.
import { Failure } from "./failure.js";
import { sha256 } from "./sha256.js";

const LIMIT = 256 * 2 ** 20;
const HEADER = 8;
/** dtype -> ONNX Runtime's word for it, and the array that holds it. Numbers are little-endian, as in every browser. */
const TYPES = {
  F64: ["float64", Float64Array],
  F32: ["float32", Float32Array],
  F16: ["float16", Uint16Array],
  I64: ["int64", BigInt64Array],
  I32: ["int32", Int32Array],
  U8: ["uint8", Uint8Array],
  BOOL: ["bool", Uint8Array],
};

/**
 * The object and the arrays of a file.
 * @param {string} name the file's name; errors begin with it
 * @param {Uint8Array} bytes
 * @returns {Promise<{content: object, arrays: Map<string, {type: string, dims: number[], data: TypedArray}>}>}
 */
export async function readTensors(name, bytes) {
  if (bytes.length > LIMIT) throw new Failure(`${name}: has more than ${LIMIT} bytes`);
  const size = bytes.length < HEADER ? Infinity : Number(view(bytes).getBigUint64(0, true));
  if (size > bytes.length - HEADER) throw new Failure(`${name}: not a proof: it is no safetensors file`);
  const { __metadata__: metadata, ...entries } = parse(name, decode(name, bytes.subarray(HEADER, HEADER + size)));
  if (typeof metadata?.eptx_proof !== "string") {
    throw new Failure(`${name}: not a proof of eptx; write one with eptx validate BUNDLE --record FILE`);
  }
  const rest = bytes.subarray(HEADER + size);
  const text = new TextEncoder().encode(metadata.eptx_proof);
  if (metadata.sha256 !== (await sha256(joined(text, rest)))) {
    throw new Failure(`${name}: damaged: its digest is another; copy it again`);
  }
  const content = parse(name, metadata.eptx_proof);
  return { content, arrays: new Map(Object.entries(entries).map(([key, entry]) => [key, array(name, key, entry, rest)])) };
}

/** Some bytes and then others. */
export function joined(first, second) {
  const both = new Uint8Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}

function view(bytes) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function decode(name, bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new Failure(`${name}: not UTF-8 text`);
  }
}

function parse(name, text) {
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Failure(`${name}: not valid JSON`);
  }
  if (value === null || typeof value !== "object" || Array.isArray(value)) {
    throw new Failure(`${name}: damaged: must hold a JSON object`);
  }
  return value;
}

function array(name, key, entry, data) {
  const damaged = new Failure(`${name}: damaged: no tensor can be read for '${key.slice(0, 60)}'`);
  if (!Object.hasOwn(TYPES, entry?.dtype) || !Array.isArray(entry.shape) || !Array.isArray(entry.data_offsets)) throw damaged;
  const [type, Numbers] = TYPES[entry.dtype];
  const { shape, data_offsets: offsets } = entry;
  if (offsets.length !== 2 || ![...shape, ...offsets].every((n) => Number.isSafeInteger(n) && n >= 0)) throw damaged;
  const [start, end] = offsets;
  const count = shape.reduce((product, n) => product * n, 1);
  if (end > data.length || end - start !== count * Numbers.BYTES_PER_ELEMENT) throw damaged;
  return { type, dims: shape, data: new Numbers(data.slice(start, end).buffer) }; // a copy: numbers lie unaligned
}
