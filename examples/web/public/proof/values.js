// Values of a model as numbers, in another shape where needed, without copying them.
import { Failure } from "./failure.js";
import { product } from "./sample.js";

/**
 * A tensor's numbers: its sizes, and the number at each place in the order of the rows.
 * @param {{dims: number[], type: string, data: TypedArray}} tensor
 * @param {[number, number]} columns the features to take of it
 */
export function numbers({ dims, type, data }, [first, stop] = [0, dims.at(-1) ?? 1]) {
  const width = dims.at(-1) ?? 1;
  const at = reader(type, data);
  if (first === 0 && stop === width) return { dims, at };
  const own = stop - first;
  return { dims: [...dims.slice(0, -1), own], at: (i) => at(Math.floor(i / own) * width + first + (i % own)) };
}

function reader(type, data) {
  if (type === "float16") throw new Failure("the model gives numbers of 16 bits, which are not read here");
  return type === "int64" ? (i) => Number(data[i]) : (i) => data[i];
}

/**
 * An output in the shape of what is exact, and what it has more, which should be zero: logits end in zeros where
 * another task has more labels. Null if the shapes do not fit.
 */
export function padded(found, shape) {
  if (String(found.dims.slice(0, -1)) !== String(shape.slice(0, -1))) return null;
  const [width, has] = [shape.at(-1), found.dims.at(-1)];
  const more = Math.max(0, has - width);
  const row = (i, size) => Math.floor(i / size) * has;
  return {
    same: { dims: shape, at: (i) => (i % width < has ? found.at(row(i, width) + (i % width)) : 0) },
    more: { dims: [...shape.slice(0, -1), more], at: (i) => found.at(row(i, more) + width + (i % more)) },
  };
}

/** The same of a module: a graph may have rows and positions in one axis, slots apart, or one row for all. */
export function like(found, shape) {
  const size = product(found.dims);
  const once = found.dims.length === shape.length && found.dims[0] === 1;
  const whole = once ? size * shape[0] : size;
  if (whole !== product(shape) || shape.at(-1) % Math.max(1, found.dims.at(-1) ?? 1)) return null;
  return { same: { dims: shape, at: (i) => found.at(i % size) }, more: null };
}
