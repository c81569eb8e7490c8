"use strict";
// Boxes that scroll sideways can be reached and scrolled from the keyboard.
function makeScrollersReachable() {
  const boxes = document.querySelectorAll("div.math, .cell_output .output, .bd-article table.table, .highlight pre");
  for (const box of boxes) {
    if (box.scrollWidth > box.clientWidth + 1) {
      box.tabIndex = 0;
      box.setAttribute("role", "region");
      box.setAttribute("aria-label", box.matches("table") ? "wide table" : "wide content");
    }
  }
}
window.addEventListener("load", () => {
  makeScrollersReachable();
  window.MathJax?.startup?.promise?.then(makeScrollersReachable);
});

// Paper is white: what is printed has the light colours, whatever the screen has.
let schemeOnScreen;
window.addEventListener("beforeprint", () => {
  schemeOnScreen = document.documentElement.dataset.theme;
  document.documentElement.dataset.theme = "light";
});
window.addEventListener("afterprint", () => {
  document.documentElement.dataset.theme = schemeOnScreen;
});

// From file:// a browser lets no script read the pages that a search found, so their excerpts are left out.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
