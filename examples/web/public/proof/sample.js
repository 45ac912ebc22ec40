// Which numbers of a value a proof holds: docs/proof.md has the rule.

/**
 * The places of a value: its rows, or the positions of its rows that are no padding.
 * @param {number[]} shape of the whole value
 * @param {object} batch that it is of
 * @returns {{rows: number[], starts: number[], width: number}} of every place: its row, and where its numbers start
 */
export function places(shape, batch) {
  const positions = shape.length < 3 ? 1 : shape[1];
  const width = product(shape.slice(shape.length < 3 ? 1 : 2));
  const masked = shape.length >= 3 && batch.mask !== null && batch.mask.dims[1] === positions;
  const [rows, starts] = [[], []];
  for (let at = 0; at < shape[0] * positions; at++) {
    if (masked && !batch.mask.kept[at]) continue;
    rows.push(Math.floor(at / positions));
    starts.push(at * width);
  }
  return { rows, starts, width };
}

/**
 * The feature of number j of place n.
 * @param {number} columns how many numbers of each place are kept
 * @param {number} width how many it has
 */
export function feature(n, j, columns, width) {
  return columns >= width ? j : (n * columns + j) % width;
}

export function product(sizes) {
  return sizes.reduce((all, size) => all * size, 1);
}
