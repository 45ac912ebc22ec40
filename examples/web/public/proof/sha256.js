// SHA-256 as both Node and browsers have it.
import { Failure, NOT_SUPPORTED } from "./failure.js";

/**
 * The digest of bytes, hexadecimal.
 * @param {Uint8Array} bytes
 */
export async function sha256(bytes) {
  if (!globalThis.crypto?.subtle) {
    throw new Failure("SHA-256 is only there for pages of https or of this machine: serve the page so", NOT_SUPPORTED);
  }
  const digest = await crypto.subtle.digest("SHA-256", bytes);
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
