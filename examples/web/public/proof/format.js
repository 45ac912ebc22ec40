// Numbers as eptx prints them.

/** So many digits, as Python's format "g" gives them: 0.0123, 45.6, 1.23e+04. */
export function precise(value, digits = 3) {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "nan" : value < 0 ? "-inf" : "inf";
  const [shown, exponent] = value.toExponential(digits - 1).split("e").map(Number);
  if (exponent < -4 || exponent >= digits) return `${shown}e${padded(exponent)}`;
  return String(Number(value.toPrecision(digits)));
}

/** Two digits and a power of ten: 1.2e-07. */
export function scientific(value) {
  if (!Number.isFinite(value)) return precise(value);
  const [digits, exponent] = value.toExponential(1).split("e");
  return `${digits}e${padded(Number(exponent))}`;
}

/** One decimal; of quarters, which are in the middle, the even one, as Python prints them. */
export function percent(share) {
  const value = 100 * share;
  const below = Math.floor(10 * value);
  const middle = Number.isInteger(4 * value) && !Number.isInteger(2 * value);
  return `${(middle ? (below + (below % 2)) / 10 : value).toFixed(1)}%`;
}

function padded(exponent) {
  return `${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;
}
