// A browser's own decoder: an image file as pixels in RGBA, upright as its EXIF data say.

/** @param {Blob} file of any format that the browser shows */
export async function readImage(file) {
  const plain = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const bitmap = await createImageBitmap(file, plain).catch(() => {
    throw new Error(`${file.name}: this browser cannot read it as an image`);
  });
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  return { height, width, data: context.getImageData(0, 0, width, height).data };
}
