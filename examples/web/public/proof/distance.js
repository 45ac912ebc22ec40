// The distance of two results as a multiple of the noise floor: runtime/validation/distance.py says why it is so.

/** A bundle fails if a ratio is larger. */
export const LIMIT = 10;
/** The largest ratio; it stands for NaN too. */
export const WORST = 1e30;
const EPS = { fp32: 2 ** -24, fp16: 2 ** -11 };
/** Fewer numbers than this measure their own noise floor badly. */
const FEW = 64;

/** The size of a set of numbers: their count, the sum of their squares, the largest magnitude. */
export class Spread {
  constructor(count = 0, squares = 0, largest = 0) {
    [this.count, this.squares, this.largest] = [count, squares, largest];
  }

  /** Adds a number; NaN or infinity makes the spread infinite. */
  add(value) {
    const size = Math.abs(value);
    this.count += 1;
    this.squares += value * value;
    if (!(size <= this.largest)) this.largest = Number.isFinite(size) ? size : Infinity;
  }

  /** Root mean square; 0 of no numbers. */
  get rms() {
    if (!Number.isFinite(this.largest) || !Number.isFinite(this.squares)) return Infinity;
    return this.count ? Math.sqrt(this.squares / this.count) : 0;
  }
}

/** A spread for every module and output of every task, empty until something is added. */
export class Spreads {
  #found = new Map();

  of(task, kind, name) {
    const key = JSON.stringify([task, kind, name]);
    if (!this.#found.has(key)) this.#found.set(key, new Spread());
    return this.#found.get(key);
  }

  set(task, kind, name, spread) {
    this.#found.set(JSON.stringify([task, kind, name]), spread);
  }

  /** Names of this kind and task that something was added for, in order. */
  names(task, kind) {
    const subjects = [...this.#found.keys()].map((key) => JSON.parse(key));
    return subjects.filter(([whose, what]) => whose === task && what === kind).map(([, , name]) => name);
  }
}

/**
 * An error as a multiple of the noise floor, at most 1e30.
 * @param {Spread} error bundle less float64
 * @param {Spread} noise own type less float64
 * @param {Spread} scale the float64 values
 * @param {"fp32" | "fp16"} dtype what the bundle's numbers round like
 * @param {number} typical noise over scale that is typical of the task, for a handful of numbers
 */
export function ratio(error, noise, scale, dtype, typical = 0) {
  const eps = scale.count < FEW ? Math.max(EPS[dtype], typical) : EPS[dtype];
  const parts = [
    divided(error.rms, Math.max(noise.rms, eps * scale.rms)),
    divided(error.largest, 2 * Math.max(noise.largest, eps * scale.largest)),
  ];
  return Math.min(Math.max(...parts), WORST);
}

function divided(error, floor) {
  if (error === 0) return 0;
  // an infinite floor would hide every error
  return floor > 0 && floor < Infinity && Number.isFinite(error) ? error / floor : WORST;
}
