// The two large files, gzipped: from inside the page (the single-file version) or from beside
// it.

/** The bytes of `name`; hear(share) is told how much has come. */
export async function asset(name, hear = () => {}) {
  const inside = document.getElementById(name);
  if (inside) {
    const packed = Uint8Array.from(atob(inside.textContent.trim()), (c) => c.charCodeAt(0));
    inside.textContent = ""; // held once is enough
    return unpacked(packed);
  }
  const response = await fetch(`${name}.gz`).catch(() => null);
  if (!response?.ok) {
    throw new Error(
      `${name}.gz did not come: serve this folder, or open tensormask.html instead`,
    );
  }
  const total = Number(response.headers.get("content-length"));
  const parts = [];
  let length = 0;
  for await (const part of chunks(response.body)) {
    parts.push(part);
    length += part.length;
    hear(total ? Math.min(length / total, 1) : 0);
  }
  return unpacked(new Uint8Array(await new Blob(parts).arrayBuffer()));
}

async function* chunks(stream) {
  const reader = stream.getReader();
  for (
    let { done, value } = await reader.read();
    !done;
    { done, value } = await reader.read()
  ) {
    yield value;
  }
}

async function unpacked(bytes) {
  // Some servers unpack .gz files on their own.
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
