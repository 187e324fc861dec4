"use strict";

const FIRST = 36; // cards shown before somebody asks for all

function sortTable(header) {
  const rows = header.closest("table").tBodies[0];
  const column = header.cellIndex;
  const wasDescending = header.ariaSort === "descending";
  const isText = !rows.rows[0].cells[column].dataset.value;
  const direction = header.ariaSort ? (wasDescending ? 1 : -1) : isText ? 1 : -1;
  const value = (row) => (isText ? row.cells[column].textContent : Number(row.cells[column].dataset.value));
  const compare = (a, b) => (isText ? value(a).localeCompare(value(b)) : value(a) - value(b));
  rows.append(...[...rows.rows].sort((a, b) => direction * compare(a, b)));
  for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
}

for (const button of document.querySelectorAll(".sortable thead button")) {
  button.addEventListener("click", () => sortTable(button.closest("th")));
}

function startGallery() {
  const byId = (id) => document.getElementById(id);
  const details = JSON.parse(byId("details").textContent);
  const [list, controls, more, dialog] = ["cards", "controls", "more", "enlarged"].map(byId);
  const items = [...list.children];
  const buttons = items.map((item) => item.firstElementChild);
  const texts = details.map((one) => [one.uri, one.label, one.reason, ...one.facts.flat()].join("\n").toLowerCase());
  const orders = {
    score: (a, b) => details[a].p_real - details[b].p_real,
    "-score": (a, b) => details[b].p_real - details[a].p_real,
    distance: (a, b) => details[a].distance - details[b].distance,
    name: (a, b) => details[a].uri.localeCompare(details[b].uri),
  };
  const natural = { generated: "score", uncertain: "distance", real: "-score", "": "score" };
  let visible = []; // indices of the cards on the page, in their order
  let current = 0; // place in visible
  let isWhole = false;

  function matches(index) {
    const { part, label, text } = controls.elements;
    const one = details[index];
    return (!part.value || one.parts.includes(part.value)) && (!label.value || one.label === label.value) &&
      texts[index].includes(text.value.toLowerCase());
  }

  function arrange() {
    const found = [...items.keys()].filter(matches).sort(orders[controls.elements.order.value]);
    visible = isWhole ? found : found.slice(0, FIRST);
    items.forEach((item) => (item.hidden = true));
    for (const index of visible) items[index].hidden = false;
    list.append(...visible.map((index) => items[index]));
    more.hidden = visible.length === found.length;
    more.textContent = `Show all ${found.length}`;
    byId("shown").textContent = found.length ? `${visible.length} of ${found.length} pictures` : "No picture is like that.";
    point(0);
  }

  // One card can be reached with Tab; the arrow keys go on from there.
  function point(place) {
    current = Math.max(0, Math.min(place, visible.length - 1));
    buttons.forEach((button) => (button.tabIndex = -1));
    if (visible.length) buttons[visible[current]].tabIndex = 0;
  }

  function columns() {
    const second = visible.findIndex((index) => items[index].offsetTop !== items[visible[0]].offsetTop);
    return second < 0 ? visible.length : second;
  }

  function steps(key) {
    const all = visible.length;
    return { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns(), ArrowDown: columns(), Home: -all, End: all }[key];
  }

  function moveFocus(event) {
    const by = steps(event.key);
    if (by === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const isOutside = current + by < 0 || current + by >= visible.length;
    if (isOutside && event.key.startsWith("Arrow")) return;
    point(current + by);
    buttons[visible[current]].focus();
  }

  function fact(term, text) {
    const [name, value] = [document.createElement("dt"), document.createElement("dd")];
    name.textContent = term;
    value.textContent = text;
    return [name, value];
  }

  function enlarge(place) {
    point(place);
    const one = details[visible[current]];
    const small = buttons[visible[current]].querySelector("img");
    byId("enlarged-name").textContent = one.uri;
    byId("enlarged-picture").hidden = !small;
    byId("enlarged-picture").src = small ? small.src : "data:,";
    byId("enlarged-picture").alt = one.name;
    byId("enlarged-missing").textContent = one.reason;
    byId("enlarged-changed").hidden = !one.is_changed;
    byId("heat").hidden = !one.heat;
    byId("heat-picture").src = one.heat || "data:,";
    byId("heat-caption").textContent =
      `Where the network found evidence for “${one.evidence_for}” (Grad-CAM). It tells where, not what.`;
    byId("facts").replaceChildren(...one.facts.flatMap(([term, text]) => fact(term, text)));
    byId("enlarged-link").parentElement.hidden = !one.link;
    byId("enlarged-link").href = one.link;
    byId("previous").disabled = current === 0;
    byId("next").disabled = current === visible.length - 1;
    if (!dialog.open) dialog.showModal();
  }

  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.addEventListener("input", (event) => {
    if (event.target.name === "part") controls.elements.order.value = natural[event.target.value];
    arrange();
  });
  more.addEventListener("click", () => {
    const place = visible.length;
    isWhole = true;
    arrange();
    point(place);
    buttons[visible[current]].focus();
  });
  list.addEventListener("keydown", moveFocus);
  list.addEventListener("click", (event) => {
    const button = event.target.closest(".card");
    if (button) enlarge(visible.indexOf(Number(button.dataset.index)));
  });
  byId("close").addEventListener("click", () => dialog.close());
  byId("previous").addEventListener("click", () => enlarge(current - 1));
  byId("next").addEventListener("click", () => enlarge(current + 1));
  dialog.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) enlarge(current + by);
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // beside it
  });
  dialog.addEventListener("close", () => buttons[visible[current]].focus());
  arrange();
}

if (document.getElementById("cards")) startGallery();
