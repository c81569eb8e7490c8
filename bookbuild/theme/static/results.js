"use strict";
// --- All results: what is chosen above is shown below --------------------------------------------

const form = document.querySelector(".filters");
if (form) {
  const items = [...document.querySelectorAll(".results > li")];
  const fold = text => text.normalize("NFKD").replace(/[\u0300-\u036f\u2061]/g, "").toLowerCase();
  const texts = items.map(item => fold(item.textContent));
  const chapterOf = item => item.closest("[data-chapter]").dataset.chapter;
  const choose = () => {
    const {chapter, kind, status, words} = Object.fromEntries(new FormData(form));
    const wanted = fold(words).split(/\s+/).filter(Boolean);
    let count = 0;
    items.forEach((item, index) => {
      item.hidden = Boolean((chapter && chapterOf(item) !== chapter) || (kind && item.dataset.kind !== kind)
        || (status && !item.dataset.status.split(", ").includes(status))
        || !wanted.every(word => texts[index].includes(word)));
      count += !item.hidden;
    });
    for (const section of document.querySelectorAll("section:has(> [data-chapter])")) {
      section.hidden = !section.querySelector(".results > li:not([hidden])");
    }
    form.count.value = `${count} of ${items.length}`;
  };
  form.hidden = false;
  form.addEventListener("input", choose);
  form.addEventListener("submit", event => event.preventDefault());
  choose();
}

// --- The graph: the lines of a result are marked while one points at it, and said in words -------

const graph = document.querySelector(".graph");
if (graph) {
  const said = document.querySelector(".graph-words");
  const lines = [...graph.querySelectorAll("path")];
  const name = label => graph.querySelector(`#graph-${label} text`).textContent;
  const mark = box => {
    for (const lit of graph.querySelectorAll(".lit")) lit.classList.remove("lit", "from", "to");
    if (!box) return;
    const label = box.id.replace("graph-", "");
    const uses = [], used = [];
    box.classList.add("lit");
    for (const line of lines) {
      if (line.dataset.to === label) uses.push(line.dataset.from);
      else if (line.dataset.from === label) used.push(line.dataset.to);
      else continue;
      line.classList.add("lit", line.dataset.to === label ? "from" : "to");
    }
    for (const other of [...uses, ...used]) graph.querySelector(`#graph-${other}`).classList.add("lit");
    const list = labels => labels.length ? labels.map(name).join(", ") : "nothing";
    said.textContent = `${box.getAttribute("aria-label")}. Rests on ${list(uses)}; used by ${list(used)}.`;
  };
  for (const start of ["pointerover", "focusin"]) {
    graph.addEventListener(start, event => mark(event.target.closest("a[id]")));
  }
}
