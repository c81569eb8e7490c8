"use strict";
const root = document.documentElement.dataset.root;

// --- Light and dark ------------------------------------------------------------------------------

const themeButton = document.querySelector(".theme-button");
const isDark = () => getComputedStyle(document.documentElement).colorScheme === "dark" ||
  (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
themeButton.hidden = false;
themeButton.addEventListener("click", () => {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  try { localStorage.setItem("theme", theme); } catch { /* then it holds for this page */ }
});

// --- Keyboard: Ctrl+K and / go to the search -----------------------------------------------------

document.addEventListener("keydown", event => {
  const typing = event.target.closest("input, textarea");
  if ((event.key === "k" && (event.ctrlKey || event.metaKey)) || (event.key === "/" && !typing)) {
    event.preventDefault();
    document.querySelector(".bar input[type=search]").focus();
  }
});

// --- Boxes that scroll sideways can be reached from the keyboard ---------------------------------

const seen = new IntersectionObserver(entries => {
  for (const {isIntersecting, target} of entries) {
    if (!isIntersecting) continue;
    seen.unobserve(target);
    if (target.scrollWidth > target.clientWidth + 1) {
      target.classList.add("scrolls");
      target.tabIndex = 0;
      target.setAttribute("role", "group");
      target.setAttribute("aria-label", "wide: scrolls sideways");
    }
  }
}, {rootMargin: "200px"});
for (const box of document.querySelectorAll(".formula, .wide, pre")) seen.observe(box);

// --- The part that one reads is marked in the list of sections -----------------------------------

const links = new Map([...document.querySelectorAll(".sections a")]
  .map(a => [decodeURIComponent(a.hash.slice(1)), a]));
const visible = new Set();
const reading = new IntersectionObserver(entries => {
  for (const {isIntersecting, target} of entries) visible[isIntersecting ? "add" : "delete"](target.id);
  let current = null;
  for (const [id, link] of links) {
    link.removeAttribute("aria-current");
    if (visible.has(id)) current = link; // the last, which is the innermost
  }
  current?.setAttribute("aria-current", "true");
}, {rootMargin: "-15% 0px -75% 0px"});
for (const id of links.keys()) {
  const section = document.getElementById(id);
  if (section) reading.observe(section);
}

// --- Code is copied with one click ---------------------------------------------------------------

function addCopy(pre) {
  const button = document.createElement("button");
  button.className = "copy";
  button.type = "button";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(pre.textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  pre.after(button);
}
function addCopies(within, which) {
  if (navigator.clipboard) for (const pre of within.querySelectorAll(which)) addCopy(pre);
}
addCopies(document, ".cell_input pre, .highlight-python:not(.cell_input *) pre, .cite-box pre");

// --- A reference shows what it means: by hovering, by the keyboard, by a long touch ---------------

const previews = {}; // page: {id: HTML}, filled by the scripts of the folder _static/previews
window.addPreviews = (page, found) => { previews[page] = found; };
const depth = root.split("..").length; // how many parts of the address name the page
const here = location.pathname.split("/").slice(-depth).join("/").replace(/\.html$/, "") || "index";
const scripts = {};

function load(page) {
  scripts[page] ??= new Promise(resolve => {
    const script = document.createElement("script");
    script.src = `${root}_static/previews/${page.replaceAll("/", "-")}.js`;
    script.onload = resolve;
    script.onerror = resolve;
    document.head.append(script);
  });
  return scripts[page];
}

async function previewOf(link) {
  let [path, id] = link.getAttribute("href").split("#");
  let page = here;
  if (link.dataset.preview) [page, id] = link.dataset.preview.split("#");
  else if (path) {
    const base = here.split("/").slice(0, -1);
    for (const part of path.replace(/\.html$/, "").split("/")) {
      if (part === "..") base.pop();
      else base.push(part);
    }
    page = base.join("/");
  }
  await load(page);
  return previews[page]?.[decodeURIComponent(id)];
}

const card = document.createElement("div");
card.className = "preview";
card.id = "preview";
card.setAttribute("role", "tooltip");
card.hidden = true;
card.addEventListener("pointerenter", () => clearTimeout(timer));
document.body.append(card);
let shownFor = null;
let timer = 0;

function hide() {
  clearTimeout(timer);
  shownFor?.removeAttribute("aria-describedby");
  shownFor = null;
  card.hidden = true;
}

async function show(link) {
  const found = await previewOf(link);
  if (!found || !link.matches(":hover, :focus")) return;
  hide();
  shownFor = link;
  link.removeAttribute("title"); // it would say the same once more
  card.innerHTML = found;
  for (const inner of card.querySelectorAll("a[href]")) inner.tabIndex = -1;
  card.hidden = false;
  link.setAttribute("aria-describedby", "preview");
  const box = link.getClientRects()[0];
  const margin = 8;
  const left = Math.min(box.left, innerWidth - card.offsetWidth - margin);
  const below = box.bottom + margin + card.offsetHeight < innerHeight || box.top < card.offsetHeight;
  card.style.left = `${Math.max(margin, left) + scrollX}px`;
  card.style.top = `${(below ? box.bottom + 4 : box.top - card.offsetHeight - 4) + scrollY}px`;
}

const REFERENCE = "article a.reference.internal:is([href*='#'], [data-preview])";
for (const [start, wait] of [["pointerover", 200], ["focusin", 0]]) {
  document.addEventListener(start, event => {
    if (event.pointerType === "touch") return;
    const link = event.target.closest?.(REFERENCE);
    if (!link || link === shownFor) return;
    clearTimeout(timer);
    timer = setTimeout(show, wait, link);
  });
}
// A first touch shows, a second one follows the link.
document.addEventListener("click", event => {
  const link = event.target.closest?.(REFERENCE);
  if (link && event.pointerType === "touch" && link !== shownFor) {
    event.preventDefault();
    link.focus();
    show(link);
  } else if (!card.contains(event.target)) hide();
});
for (const end of ["pointerout", "focusout"]) {
  document.addEventListener(end, event => {
    const to = event.relatedTarget;
    if (event.pointerType === "touch" || (to && (card.contains(to) || to.closest?.(REFERENCE) === shownFor))) return;
    if (event.target.closest?.(REFERENCE) || card.contains(event.target)) {
      clearTimeout(timer);
      timer = setTimeout(hide, 150);
    }
  });
}
document.addEventListener("keydown", event => { if (event.key === "Escape") hide(); });

// --- "cite" at a statement opens what one copies; without a script it leads to the statement's page

const dialog = document.createElement("dialog");
dialog.className = "cite-dialog";
dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });
document.body.append(dialog);
document.addEventListener("click", async event => {
  const link = event.target.closest?.("a.cite");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  await load(here);
  const box = previews[here]?.[`cite:${link.closest("[id]").id}`];
  if (!box) { location.href = link.href; return; }
  dialog.setAttribute("aria-label", link.getAttribute("aria-label"));
  dialog.innerHTML = `<h2>${link.getAttribute("aria-label")}</h2>${box}<form method="dialog"><button>Close</button></form>`;
  addCopies(dialog, "pre");
  dialog.showModal();
});
// Who comes to such a text by the keyboard has it selected.
document.addEventListener("focusin", event => {
  if (event.target.matches?.(".cite-box pre")) getSelection().selectAllChildren(event.target);
});

// --- What a link leads to is opened if it is folded ----------------------------------------------

function unfold() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let e = target; e; e = e.parentElement) if (e.tagName === "DETAILS") e.open = true;
  target.scrollIntoView();
}
addEventListener("hashchange", unfold);
if (location.hash) unfold();


// --- Who comes from the search sees the words that were asked for --------------------------------

const asked = new URLSearchParams(location.search).get("highlight");
if (asked) {
  const wanted = new RegExp(`(${asked.split(" ").map(w => w.replace(/[^\p{L}\p{N}]/gu, "\\$&")).join("|")})`, "giu");
  const target = (location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)))) || document.querySelector("article");
  const scope = target.matches("section section, div, dt, details, figure") ? target : document.querySelector("article");
  const walker = document.createTreeWalker(scope, NodeFilter.SHOW_TEXT);
  const texts = [];
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (!node.parentElement.closest("math, pre, script") && node.data.search(wanted) >= 0) texts.push(node);
  }
  for (const node of texts) {
    const parts = node.data.split(wanted);
    node.replaceWith(...parts.map((part, i) => i % 2 ? Object.assign(document.createElement("mark"), {textContent: part}) : part));
  }
}
