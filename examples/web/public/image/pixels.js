// Images to the rows of `pixel_values` that eptx makes of them, in the steps of eptx.json's `image`.
import { resize } from "./resize.js";

const CHANNELS = 3;
const MOST_PIXELS = 100_000_000;

export class Pixels {
  #how;

  /** @param {object} manifest the bundle's eptx.json */
  constructor(manifest) {
    this.#how = manifest.image;
  }

  /**
   * Several rows.
   * @param {{image: {height: number, width: number, data: ArrayLike<number>}}[]} rows images in RGBA, 8 bits each
   * @returns {{dims: number[], columns: {pixel_values: Float32Array}}} dims [rows, 3, height, width]
   */
  batch(rows) {
    const made = rows.map(({ image }) => this.#values(image));
    const [{ height, width }] = made;
    if (made.some((one) => one.height !== height || one.width !== width)) {
      throw new Error("the images of the batch become of different sizes; run each by itself");
    }
    const values = new Float32Array(rows.length * CHANNELS * height * width);
    made.forEach((one, i) => values.set(one.values, i * one.values.length));
    return { dims: [rows.length, CHANNELS, height, width], columns: { pixel_values: values } };
  }

  #values(image) {
    const how = this.#how;
    let made = opaque(image, how.alpha === "white");
    if (how.resize) {
      const [height, width] = sizeOf(made, how.resize);
      if (height * width > MOST_PIXELS) throw new Error(`the image would be resized to ${width} x ${height}: cut it`);
      made = resize(made, height, width, how.resize.filter);
    }
    if (how.crop) made = cropped(made, ...how.crop);
    return { height: made.height, width: made.width, values: scaled(made, how) };
  }
}

/** RGBA as RGB: what is transparent laid on white as Pillow does, or its transparency left out. */
function opaque({ height, width, data }, white) {
  const made = new Uint8Array(height * width * CHANNELS);
  for (let i = 0; i < height * width; i++) {
    const alpha = white ? data[4 * i + 3] : 255;
    for (let channel = 0; channel < CHANNELS; channel++) {
      const sum = (data[4 * i + channel] * alpha + 255 * (255 - alpha) + 128) * 128;
      made[CHANNELS * i + channel] = (((sum >> 8) + sum) >> 8) >> 7;
    }
  }
  return { height, width, data: made };
}

/** Python's round: half goes to the even neighbour. */
function rounded(number) {
  const low = Math.floor(number);
  if (number - low !== 0.5) return Math.round(number);
  return low % 2 === 0 ? low : low + 1;
}

/** Height and width behind the step. */
function sizeOf({ height, width }, how) {
  if (!how.shortest_edge) return [how.height, how.width];
  const [short, long] = [Math.min(height, width), Math.max(height, width)];
  let [edge, exact] = [how.shortest_edge, how.shortest_edge];
  const longest = how.longest_edge ?? null;
  if (longest !== null && (long / short) * edge > longest) {
    exact = (longest * short) / long;
    edge = rounded(exact);
  }
  if (longest !== null && short === edge) return [height, width];
  const other = Math.max(1, Math.trunc((exact * long) / short));
  edge = Math.max(1, edge);
  return height <= width ? [edge, other] : [other, edge];
}

/** The middle; what is smaller gets 0 around it. */
function cropped({ height, width, data }, newHeight, newWidth) {
  const start = (size, wanted) => (size >= wanted ? Math.floor((size - wanted) / 2) : -Math.ceil((wanted - size) / 2));
  const [top, left] = [start(height, newHeight), start(width, newWidth)];
  const made = new Uint8Array(newHeight * newWidth * CHANNELS);
  for (let y = Math.max(0, -top); y < Math.min(newHeight, height - top); y++) {
    const [first, last] = [Math.max(0, -left), Math.min(newWidth, width - left)];
    const row = ((y + top) * width + left) * CHANNELS;
    made.set(data.subarray(row + first * CHANNELS, row + last * CHANNELS), (y * newWidth + first) * CHANNELS);
  }
  return { height: newHeight, width: newWidth, data: made };
}

/** float32 [3, height, width]: scaled, less the mean, over the deviation. */
function scaled({ height, width, data }, how) {
  const size = height * width;
  const values = new Float32Array(CHANNELS * size);
  const normalizes = how.mean !== null && how.std !== null;
  for (let channel = 0; channel < CHANNELS; channel++) {
    const target = (how.flip ? CHANNELS - 1 - channel : channel) * size;
    const [mean, std] = normalizes ? [Math.fround(how.mean[channel]), Math.fround(how.std[channel])] : [0, 1];
    for (let i = 0; i < size; i++) {
      const value = Math.fround(data[CHANNELS * i + channel] * (how.scale ?? 1));
      values[target + i] = normalizes ? Math.fround(value - mean) / std : value;
    }
  }
  return values;
}
