"use strict";
// The index is a list of entries {k: kind, n: number, t: title, x: text, w: other words, l: label, p: page and anchor, c: chapter}.

const fold = text => text.normalize("NFKD").replace(/[\u0300-\u036f]/g, "").toLowerCase();
// Words and numbers such as 5.7 and kl_loss; the plural counts as the singular.
const words = text => (fold(text).match(/[\p{L}\p{N}](?:[\p{L}\p{N}_*]|\.(?=[\p{L}\p{N}]))*/gu) ?? [])
  .map(word => word.length > 3 ? word.replace(/(?<=[^s])s$/, "") : word);
const GREEK = {λ: "lambda", π: "pi", β: "beta", χ: "chi", σ: "sigma", μ: "mu", θ: "theta", α: "alpha", δ: "delta"};
const spelled = text => text.replace(/[λπβχσμθαδ]/g, letter => ` ${GREEK[letter]} `);

// How much a word found in each field counts.
const FIELDS = [["w", 9], ["n", 8], ["t", 6], ["l", 3], ["k", 2], ["x", 1]];
// Among equals, what a reader means more often.
const KIND = {answer: 2, statement: 1.2, section: 1.1, page: 1.1, function: 0.6, exercise: 0.8};

for (const entry of window.searchEntries) {
  entry.words = FIELDS.map(([field]) => words(spelled(entry[field] ?? "")));
}

function score(entry, wanted) {
  let total = 0;
  for (const word of wanted) {
    let best = 0;
    entry.words.forEach((found, index) => {
      const weight = FIELDS[index][1];
      if (found.includes(word)) best = Math.max(best, weight);
      else if (word.length > 2 && found.some(one => one.startsWith(word))) best = Math.max(best, weight * 0.6);
    });
    if (!best) return 0;
    total += best;
  }
  // A title, or a set of words, that is wholly asked for is what was meant.
  const whole = index => entry.words[index].length && entry.words[index].every(word => wanted.includes(word));
  if (whole(0) || whole(1) || whole(2)) total *= 1.5;
  return total * (KIND[entry.g] ?? 1);
}

const escape = text => text.replace(/[&<>"]/g, c => ({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"})[c]);

function marked(text, wanted) {
  return text.split(/(\s+)/).map(part =>
    wanted.some(word => word.length > 1 && words(spelled(part)).some(one => one.startsWith(word)))
      ? `<mark>${escape(part)}</mark>` : escape(part)).join("");
}

function excerpt(text, wanted) {
  const parts = text.split(/\s+/);
  const first = parts.findIndex(part => wanted.some(word => words(spelled(part)).some(one => one.startsWith(word))));
  const start = Math.max(0, first - 8);
  const end = start + 32;
  return (start ? "… " : "") + parts.slice(start, end).join(" ") + (end < parts.length ? " …" : "");
}

const STOP = new Set(words("a an and are as at be by do does for from how i in is it my of on or s that the to what when which why with your should"));
const query = new URLSearchParams(location.search).get("q")?.trim() ?? "";
for (const input of document.querySelectorAll("input[name=q]")) input.value = query;
if (query) {
  const asked = words(spelled(query));
  const without = asked.filter(word => !STOP.has(word));
  const wanted = without.length ? without : asked;
  let found = window.searchEntries.map(entry => [score(entry, wanted), entry]).filter(([value]) => value > 0);
  found.sort(([a], [b]) => b - a);
  const total = found.length;
  found = found.slice(0, 40);
  document.getElementById("found").textContent = total
    ? `${total === 1 ? "One place" : `${total} places`} for “${query}”${total > 40 ? ", the best 40" : ""}.`
    : `Nothing has all the words of “${query}”. Try fewer, or another name.`;
  document.getElementById("results").innerHTML = found.map(([, entry]) => {
    const [page, anchor] = entry.p.split("#");
    const target = `${page}?highlight=${encodeURIComponent(wanted.join(" "))}${anchor ? `#${anchor}` : ""}`;
    const kind = [entry.k, entry.n].filter(Boolean).join(" ");
    return `<li><a href="${escape(target)}">${kind ? `<span class="kind">${escape(kind)}</span> ` : ""}${marked(entry.t, wanted)}</a>` +
      `<span class="where">${escape(entry.c)}</span><p>${marked(excerpt(entry.x, wanted), wanted)}</p></li>`;
  }).join("");
}
