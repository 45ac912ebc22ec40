// Resizing as Pillow does it: two passes, across and down, each with weights of 22 bits and results of 8.

const BITS = 22;
const CHANNELS = 3;

const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

function bicubic(x) {
  const at = Math.abs(x);
  if (at < 1) return (1.5 * at - 2.5) * at * at + 1;
  return at < 2 ? ((at - 5) * at + 8) * at * -0.5 + 2 : 0;
}

function hamming(x) {
  const at = Math.abs(x);
  if (at === 0) return 1;
  return at >= 1 ? 0 : sinc(at) * (0.54 + 0.46 * Math.cos(Math.PI * at));
}

/** The filters but nearest: how far each reaches, and its weight at a distance. */
const FILTERS = {
  box: [0.5, (x) => (x > -0.5 && x <= 0.5 ? 1 : 0)],
  bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  hamming: [1, hamming],
  bicubic: [2, bicubic],
  lanczos: [3, (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0)],
};

/** For each place of the new axis: the first old place that counts, and the weights from there on. */
function weightsOf(from, to, [reach, weigh]) {
  const scale = from / to;
  const wide = Math.max(scale, 1);
  const support = reach * wide;
  return Array.from({ length: to }, (_, place) => {
    const center = (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support + 0.5));
    const count = Math.min(from, Math.trunc(center + support + 0.5)) - first;
    const weights = Array.from({ length: count }, (_, i) => weigh((i + first - center + 0.5) * (1 / wide)));
    const sum = weights.reduce((total, weight) => total + weight, 0);
    const round = (weight) => Math.trunc((weight < 0 ? -0.5 : 0.5) + (sum === 0 ? weight : weight / sum) * 2 ** BITS);
    return { first, weights: weights.map(round) };
  });
}

const cut = (sum) => Math.min(255, Math.max(0, Math.floor(sum / 2 ** BITS)));

/**
 * One axis of an image resized.
 * @param {{height: number, width: number, data: Uint8Array}} image [height, width, 3]
 */
function along(image, axis, to, filter) {
  const { height, width, data } = image;
  const [from, lines] = axis === "width" ? [width, height] : [height, width];
  if (from === to) return image;
  const made = { height, width, [axis]: to, data: new Uint8Array(lines * to * CHANNELS) };
  const step = axis === "width" ? CHANNELS : width * CHANNELS;
  weightsOf(from, to, filter).forEach(({ first, weights }, place) => {
    for (let line = 0; line < lines; line++) {
      const source = axis === "width" ? line * width * CHANNELS : line * CHANNELS;
      const target = axis === "width" ? (line * to + place) * CHANNELS : (place * width + line) * CHANNELS;
      for (let channel = 0; channel < CHANNELS; channel++) {
        let sum = 2 ** (BITS - 1);
        for (let i = 0; i < weights.length; i++) sum += weights[i] * data[source + (first + i) * step + channel];
        made.data[target + channel] = cut(sum);
      }
    }
  });
  return made;
}

/** The old place of each new one. Pillow adds up the steps, so this does. */
function nearestPlaces(from, to) {
  const places = [];
  for (let at = (from / to) * 0.5; places.length < to; at += from / to) places.push(Math.trunc(at));
  return places;
}

function nearest({ height, width, data }, newHeight, newWidth) {
  const [rows, columns] = [nearestPlaces(height, newHeight), nearestPlaces(width, newWidth)];
  const made = new Uint8Array(newHeight * newWidth * CHANNELS);
  let at = 0;
  for (const row of rows) {
    for (const column of columns) {
      for (let channel = 0; channel < CHANNELS; channel++) made[at++] = data[(row * width + column) * CHANNELS + channel];
    }
  }
  return { height: newHeight, width: newWidth, data: made };
}

/**
 * An image in another size.
 * @param {{height: number, width: number, data: Uint8Array}} image [height, width, 3]
 * @param {string} filter a name of eptx.json's `image.resize.filter`
 */
export function resize(image, height, width, filter) {
  if (image.height === height && image.width === width) return image;
  if (filter === "nearest") return nearest(image, height, width);
  if (!(filter in FILTERS)) throw new Error(`this example has no filter ${filter}`);
  return along(along(image, "width", width, FILTERS[filter]), "height", height, FILTERS[filter]);
}
