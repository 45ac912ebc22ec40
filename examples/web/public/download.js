// Files of the server that the page came from.

/** Asks whether what is cached still holds: a replaced bundle is replaced whole. */
const FRESH = { cache: "no-cache" };

/** A server's answer; throws a line where it has no such file. */
export async function get(address) {
  const response = await fetch(address, FRESH);
  if (response.ok) return response;
  const name = address.slice(address.lastIndexOf("/") + 1);
  throw new Error(`${name}: the server answers ${response.status}; run prepare.mjs first`);
}

/**
 * The bytes of a bundle's file, counted while they come.
 * @param {string} folder the bundle's address
 * @param {string} name of the file
 * @param {number} size that eptx.json gives it
 * @param {(bytes: number) => void} received called with how many have come
 */
export async function download(folder, name, size, received) {
  const response = await get(folder + name);
  const data = new Uint8Array(size);
  let filled = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    if (filled + value.length > size) throw new Error(`${name}: has more bytes than eptx.json says`);
    data.set(value, filled);
    filled += value.length;
    received(value.length);
  }
  if (filled < size) throw new Error(`${name}: ends after ${filled} of ${size} bytes`);
  return data;
}
