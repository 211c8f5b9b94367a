/** A source of chance: the next number in [0, 1). Handed in, so that a run can be repeated from its seed. */
export type Random = () => number;

/** sfc32, seeded from a string through a small hash: equal seeds give equal runs on every machine. */
export function seededRandom(seed: string): Random {
  let [a, b, c, d] = hash128(seed);
  const next: Random = () => {
    const t = (((a + b) | 0) + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + t;
    c |= 0;
    return (t >>> 0) / 0x1_0000_0000;
  };
  for (let i = 0; i < 12; i += 1) next();
  return next;
}

/** An integer in [low, high]. */
export function randomInteger(random: Random, low: number, high: number): number {
  return low + Math.floor(random() * (high - low + 1));
}

function hash128(text: string): [number, number, number, number] {
  const words: [number, number, number, number] = [0x9e3779b9, 0x243f6a88, 0xb7e15162, 0xdeadbeef];
  for (let i = 0; i < text.length; i += 1) {
    const code = text.charCodeAt(i);
    words[0] = Math.imul(words[0] ^ code, 0x85ebca6b);
    words[1] = Math.imul(words[1] ^ (code + i), 0xc2b2ae35);
    words[2] = Math.imul(words[2] ^ words[0], 0x27d4eb2f);
    words[3] = (words[3] + words[1]) ^ (words[2] >>> 15);
  }
  return words;
}
