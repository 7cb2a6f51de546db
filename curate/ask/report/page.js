// Sorts and filters the cards of a section. What strangers wrote is read and written as text alone, never as HTML.
"use strict";

function controlSection(bar) {
  const section = bar.parentElement;
  const [search, by, low, high, order] = ["search", "by", "low", "high", "order"].map((name) => bar.querySelector(`[name=${name}]`));
  const cards = [...section.querySelectorAll(".card")].map((element) => ({
    element,
    gallery: element.parentElement,
    rule: element.dataset.rule,
    text: [...element.querySelectorAll("bdi, .uid")].map((part) => part.textContent).join("\n").toLowerCase(),
    cells: new Map([...element.querySelectorAll("[data-value]")].map((cell) => [cell.previousElementSibling.textContent, cell])),
    badge: element.insertBefore(document.createElement("span"), element.firstChild),
  }));
  const valueOf = (card) => Number(card.cells.get(by.value)?.dataset.value ?? NaN);
  const chosen = new Set();

  function apply() {
    const words = search.value.toLowerCase();
    const direction = Number(order.value);
    const sorted = direction
      ? [...cards].sort((a, b) => Number.isNaN(valueOf(a)) - Number.isNaN(valueOf(b)) || direction * (valueOf(a) - valueOf(b)))
      : cards;
    let shown = 0;
    for (const card of sorted) {
      const value = valueOf(card);
      const isShown =
        (!chosen.size || chosen.has(card.rule)) &&
        card.text.includes(words) &&
        (low.value === "" || value >= Number(low.value)) &&
        (high.value === "" || value <= Number(high.value));
      card.element.hidden = !isShown;
      card.gallery.append(card.element);
      shown += isShown;
    }
    for (const group of section.querySelectorAll(".group")) group.hidden = !group.querySelector(".card:not([hidden])");
    bar.querySelector("output").textContent = shown === cards.length ? `${shown} shown` : `${shown} of ${cards.length} shown`;
  }

  function choose() {
    const values = cards.map(valueOf).filter((value) => !Number.isNaN(value));
    low.placeholder = by.value && Math.min(...values);
    high.placeholder = by.value && Math.max(...values);
    low.value = high.value = order.value = "";
    bar.querySelector(".range").hidden = !by.value;
    for (const card of cards) {
      const cell = card.cells.get(by.value);
      card.badge.className = "badge";
      card.badge.hidden = !cell;
      card.badge.textContent = cell ? `${by.value} ${cell.textContent}` : "";
    }
    apply();
  }

  function addChips(box, counts) {
    for (const [rule, count] of counts) {
      const chip = box.appendChild(document.createElement("button"));
      chip.type = "button";
      chip.textContent = `${rule} ${count}`;
      chip.setAttribute("aria-pressed", "false");
      chip.addEventListener("click", () => {
        if (!chosen.delete(rule)) chosen.add(rule);
        chip.setAttribute("aria-pressed", String(chosen.has(rule)));
        apply();
      });
    }
  }

  const counts = new Map();
  for (const { rule } of cards) if (rule) counts.set(rule, (counts.get(rule) ?? 0) + 1);
  if (counts.size > 1) addChips(bar.querySelector(".chips"), counts);
  for (const name of new Set(cards.flatMap((card) => [...card.cells.keys()]))) by.append(new Option(name, name));
  bar.querySelector(".values").hidden = by.length === 1;
  by.addEventListener("change", choose);
  for (const input of [search, low, high, order]) input.addEventListener("input", apply);
  bar.querySelector("[name=reset]").addEventListener("click", () => {
    search.value = by.value = "";
    chosen.clear();
    for (const chip of bar.querySelectorAll("[aria-pressed]")) chip.setAttribute("aria-pressed", "false");
    choose();
  });
  choose();
  bar.hidden = false;
}

function addCopyButton(uid) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "copy";
  button.addEventListener("click", async () => {
    getSelection().selectAllChildren(uid); // where the clipboard is not allowed, Ctrl+C copies it
    try {
      await navigator.clipboard.writeText(uid.textContent);
      button.textContent = "copied";
    } catch {
      button.textContent = "selected";
    }
  });
  uid.after(button);
}

document.querySelectorAll(".filters").forEach(controlSection);
document.querySelectorAll(".uid").forEach(addCopyButton);
