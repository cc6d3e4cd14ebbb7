// The metadata inside an ONNX file, without a protobuf library: field 14 of the model holds
// entries of key (1) and value (2); every value of ours is JSON.

const METADATA_PROPS = 14;
const PREFIX = "tensormask_edu.";

/** {class_names, strides_px, windows, ...} of a file's bytes. */
export function onnxMetadata(bytes) {
  const text = new TextDecoder();
  const found = {};
  for (const [number, entry] of fields(bytes)) {
    if (number !== METADATA_PROPS) continue;
    const [key, value] = [...fields(entry)].map(([, part]) => text.decode(part));
    if (key.startsWith(PREFIX)) found[key.slice(PREFIX.length)] = JSON.parse(value);
  }
  if (!found.windows)
    throw new Error("this is no ONNX file of tensormask-export: export it again");
  return found;
}

/** The fields with a length (strings, messages) of a protobuf message: [number, bytes]. */
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let [value, factor] = [0, 1];
    for (; bytes[at] & 0x80; factor *= 128) value += (bytes[at++] & 0x7f) * factor;
    return value + bytes[at++] * factor;
  };
  const skipped = { 0: varint, 1: () => (at += 8), 5: () => (at += 4) };
  while (at < bytes.length) {
    const tag = varint();
    if ((tag & 7) === 2) {
      const length = varint();
      at += length;
      yield [tag >>> 3, bytes.subarray(at - length, at)];
    } else {
      skipped[tag & 7]();
    }
  }
}
