"use strict";
// "What should I write?": the first cells of the table say for what each row is meant, in parts that
// a semicolon separates, with "or" between alternatives. One chooses a part of each; the row stays.

for (const table of document.querySelectorAll("table.choose")) {
  const parts = text => text.trim().replace(/\s+/g, " ").split("; ");
  const rows = [...table.tBodies[0].rows].map(row => (
    {row, fits: parts(row.cells[0].textContent).map(part => part.split(" or "))}));
  const form = document.createElement("form");
  form.className = "controls choices";
  parts(table.tHead.rows[0].cells[0].textContent).forEach((name, place) => {
    const choices = document.createElement("fieldset");
    choices.append(Object.assign(document.createElement("legend"), {textContent: `${name}:`}));
    for (const option of new Set(rows.flatMap(({fits}) => fits[place]))) {
      const label = document.createElement("label");
      const input = Object.assign(document.createElement("input"),
        {type: "radio", name: `part-${place}`, value: option, defaultChecked: !choices.querySelector("input")});
      input.autocomplete = "off";
      label.append(input, option);
      choices.append(label);
    }
    form.append(choices);
  });
  const show = () => {
    const chosen = [...form.querySelectorAll(":checked")].map(input => input.value);
    for (const {row, fits} of rows) row.hidden = !chosen.every((value, place) => fits[place].includes(value));
  };
  form.addEventListener("input", show);
  form.addEventListener("submit", event => event.preventDefault());
  table.classList.add("chosen");
  (table.closest(".wide") ?? table).before(form);
  show();
}
