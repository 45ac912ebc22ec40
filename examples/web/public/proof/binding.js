// What binds a proof to its bundle: what eptx.json says, with the hash of every file.
import { Failure } from "./failure.js";

/** What no validation reads. */
const UNREAD = ["generator"];
const UNREAD_FILES = ["README.md"];
/** A bundle that differs here is another one. */
const IDENTITY = ["fingerprints", "mode"];
const CHANGED = "is not what was proved: it has changed since the proof was recorded";

/**
 * A check, as validation.json has them, for everything that a proof is bound to.
 * @param {string} name the proof's file
 * @param {object} proved what the proof says of its bundle
 * @param {object} manifest the bundle's eptx.json
 */
export function checkSame(name, proved, manifest) {
  const other = IDENTITY.find((field) => !same(manifest[field], proved[field]));
  if (other !== undefined) {
    throw new Failure(
      `${name}: is the proof of another bundle: its ${other} differs; record one of this bundle with eptx validate BUNDLE --record FILE`,
    );
  }
  const check = (what, a, b) => ({ name: what, how: "compared", wrong: same(a, b) ? null : CHANGED, why: null });
  const read = (names, unread) => [...new Set(names)].filter((one) => !unread.includes(one)).sort();
  const fields = read([...Object.keys(manifest), ...Object.keys(proved)], [...UNREAD, "files"]);
  const files = read([...Object.keys(manifest.files), ...Object.keys(proved.files)], UNREAD_FILES);
  return [
    ...fields.map((field) => check(`eptx.json ${field}`, manifest[field], proved[field])),
    ...files.map((file) => check(file, manifest.files[file], proved.files[file])),
  ];
}

/** Whether two JSON values are the same; the order of an object's names does not count. */
function same(a, b) {
  if (a === b) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  const [own, others] = [Object.keys(a), Object.keys(b)];
  return own.length === others.length && own.every((key) => Object.hasOwn(b, key) && same(a[key], b[key]));
}
