/* Numbers as Python writes them: the exact binary value, rounded half to even. */

/** Round the exact decimal text of a number to so many places. */
function halfEven(exact, places) {
  const [whole, part = ""] = exact.split(".");
  const digits = part.padEnd(places, "0");
  const kept = BigInt(whole + digits.slice(0, places));
  const rest = digits.slice(places);
  const tie = /^50*$/.test(rest);
  const up = tie ? kept % 2n === 1n : rest[0] >= "5";
  const text = String(up ? kept + 1n : kept).padStart(places + 1, "0");
  return places ? `${text.slice(0, -places)}.${text.slice(-places)}` : text;
}

/** Write like Python's `.2f`, for two places. */
function fixed(value, places) {
  const size = Math.abs(value);
  const text = halfEven(size < 1e21 ? size.toFixed(100) : String(BigInt(size)), places);
  return value < 0 || Object.is(value, -0) ? `-${text}` : text;
}

/** Write like Python's `.3g`, for three digits. */
function general(value, digits) {
  if (value === 0) return "0";
  const [exact, power] = Math.abs(value).toExponential(100).split("e");
  const rounded = halfEven(exact, digits - 1);
  const carried = rounded.startsWith("10");
  const exponent = Number(power) + (carried ? 1 : 0);
  const mantissa = carried ? rounded.replace("10", "1") : rounded;
  const sign = value < 0 ? "-" : "";
  if (exponent >= -4 && exponent < digits) return sign + shortened(fixed(Math.abs(value), digits - 1 - exponent));
  return `${sign}${shortened(mantissa)}e${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;
}

function shortened(text) {
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

function milliseconds(nanoseconds) {
  const number = nanoseconds / 1e6;
  return fixed(number, number >= 100 ? 1 : number >= 1 ? 2 : 3);
}

const SHOW = {
  milliseconds: (value) => `${milliseconds(value)} ms`,
  mebibytes: (value) => `${fixed(Math.trunc(value) / 2 ** 20, 2)} MiB`,
  millijoules: (value) => `${general(1e3 * value, 3)} mJ`,
  percent: (value) => `${fixed(100 * value, 1)} %`,
  rate: (value) => `${fixed(value, 0)} per second`,
};
