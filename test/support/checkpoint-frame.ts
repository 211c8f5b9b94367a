/** A checkpoint's rows under another version's frame, with the right checksum for it (an own reckoning, so that both are held). */
export function reframed(version: number, text: string): string {
  const [, ...lines] = text.slice(0, -"\nend\n".length).split("\n");
  const hash = (text: string): [number, number] => {
    let [a, b] = [0x811c9dc5, 0x1b873593];
    for (const character of text) {
      a = Math.imul(a ^ character.charCodeAt(0), 0x01000193);
      b = Math.imul(b ^ character.charCodeAt(0), 0x85ebca6b);
    }
    return [a, b];
  };
  let [a, b] = hash(`berth/${version}`);
  for (const line of lines) {
    const [x, y] = hash(line);
    a = Math.imul(a ^ x, 0x01000193);
    b = Math.imul(b ^ y, 0x85ebca6b) ^ line.length;
  }
  const sum = [a, b].map((word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
  return `berth/${version} ${sum} ${lines.length}\n${lines.join("\n")}\nend\n`;
}
