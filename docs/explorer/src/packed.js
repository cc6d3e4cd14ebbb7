// Arrays that came as text, base64 of their bytes.

const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

/** Bits, the first of a byte the highest, as an array of 0 and 1. */
export function unpackedBits(text) {
  return Array.from(bytes(text), (byte) =>
    [7, 6, 5, 4, 3, 2, 1, 0].map((k) => (byte >> k) & 1),
  ).flat();
}

/** Little-endian float16 as numbers: not every browser reads them itself. */
export function float16(text) {
  const data = new DataView(bytes(text).buffer);
  return Array.from({ length: data.byteLength / 2 }, (_, i) => {
    const bits = data.getUint16(2 * i, true);
    const [exponent, part] = [(bits >> 10) & 31, (bits & 1023) / 1024];
    const size = exponent ? (1 + part) * 2 ** (exponent - 15) : part * 2 ** -14;
    return bits >> 15 ? -size : size;
  });
}
