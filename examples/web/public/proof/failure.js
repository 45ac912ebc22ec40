// What ends a validation before its verdict: one line, and the exit code that eptx has for it.

export const USAGE = 2;
export const BAD_INPUT = 3;
export const FAILED = 4;
export const NOT_SUPPORTED = 5;

export class Failure extends Error {
  /**
   * @param {string} message one line
   * @param {number} code what a command exits with
   */
  constructor(message, code = BAD_INPUT) {
    super(message);
    this.code = code;
  }
}

/** The first line of an error of a library, so that what is said stays one line. */
export function oneLine(error) {
  return String(error?.message ?? error).split("\n", 1)[0].trim();
}
