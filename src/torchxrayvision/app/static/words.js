// All texts of the page come from words.json, so that another language is another file.
let words = {};

export async function loadWords() {
  words = await (await fetch("/static/words.json")).json();
}

export function say(key, values = {}) {
  const text = key.split(".").reduce((part, name) => part?.[name], words);
  if (typeof text !== "string") return key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

export function has(key) {
  return typeof key.split(".").reduce((part, name) => part?.[name], words) === "string";
}

export function fillWords(root) {
  for (const element of root.querySelectorAll("[data-text]"))
    element.textContent = say(element.dataset.text);
  for (const element of root.querySelectorAll("[data-name]"))
    element.setAttribute("aria-label", say(element.dataset.name));
  for (const element of root.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", say(element.dataset.label));
    element.title = say(element.dataset.label);
  }
  for (const element of root.querySelectorAll("[data-hint]"))
    element.placeholder = say(element.dataset.hint);
  for (const element of root.querySelectorAll("[data-tip]"))
    element.title = say(element.dataset.tip);
}

// A finding as a person reads it: "Pleural_Thickening" is written with a space.
export function findingName(name) {
  return name.replaceAll("_", " ");
}
