"use strict";
// Living figures. The page has a still picture and its controls. Once the reader has begun to do
// something and a figure is in view, Vega draws it from its specification in the picture's place.

{
  const figures = [...document.querySelectorAll("figure[data-living]")];
  const specifications = {};
  window.addLiving = (name, specification) => { specifications[name] = specification; };

  const loaded = {};
  function load(file) {
    loaded[file] ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = `${document.documentElement.dataset.root}_static/living/${file}.js`;
      script.onload = resolve;
      script.onerror = reject;
      document.head.append(script);
    });
    return loaded[file];
  }

  const valueOf = control => control.type === "range" ? Number(control.value) : JSON.parse(control.value);
  const chosen = figure => [...figure.querySelectorAll("input[type=range], input:checked")];

  async function draw(figure) {
    const name = figure.dataset.living;
    await Promise.all([load("vega"), load(name)]);
    const place = document.createElement("div");
    place.className = "drawn";
    figure.querySelector(".drawing").append(place);
    // Vega's interpreter, and no styles of its own: the page's policy allows neither code made of text
    // nor style sheets but ours.
    const options = {mode: "vega", renderer: "svg", actions: false, ast: true, defaultStyle: false, tooltip: false};
    const {view} = await window.drawLiving(place, specifications[name], options);
    figure.classList.add("live");
    return view;
  }

  const views = new Map();
  function view(figure) {
    if (!views.has(figure)) {
      views.set(figure, draw(figure));
      views.get(figure).catch(() => { figure.querySelector("form").hidden = true; }); // the still picture stays
    }
    return views.get(figure);
  }

  async function update(figure) {
    const drawn = await view(figure);
    for (const control of chosen(figure)) drawn.signal(control.name, valueOf(control));
    await drawn.runAsync();
    const texts = [...figure.querySelectorAll(".mark-text.role-mark text")].map(text => text.textContent);
    figure.querySelector(".said").textContent = texts.join("; ");
  }

  for (const figure of figures) {
    const form = figure.querySelector("form");
    form.hidden = false;
    form.addEventListener("submit", event => event.preventDefault());
    form.addEventListener("input", event => {
      const shown = event.target.parentElement.querySelector("output");
      if (shown) shown.value = event.target.value;
      update(figure);
    });
  }

  const inView = new IntersectionObserver(entries => {
    for (const {isIntersecting, target} of entries) {
      if (!isIntersecting) continue;
      inView.unobserve(target);
      view(target);
    }
  }, {rootMargin: "100px"});
  const begun = new AbortController();
  for (const type of ["pointermove", "pointerdown", "keydown", "scroll"]) {
    addEventListener(type, () => {
      begun.abort();
      for (const figure of figures) inView.observe(figure);
    }, {passive: true, signal: begun.signal});
  }
}
