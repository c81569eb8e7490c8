"use strict";
// Before anything is drawn: the colours that the reader chose, if any; else the system's.
try {
  const chosen = localStorage.getItem("theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
} catch { /* storage may be forbidden */ }
