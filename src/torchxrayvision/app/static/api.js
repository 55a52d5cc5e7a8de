// What the page asks its server for. Every error becomes one that says what to do.
import {has, say} from "./words.js";

export class Refusal extends Error {
  constructor(code, detail) {
    const known = has(`error.${code}`) ? code : "unexpected";
    super(say(`error.${known}`, {detail}));
    this.code = code;
    this.detail = detail;
  }
}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("no-server", "");
  }
  if (answer.ok) return answer;
  let code = "unexpected", detail = `${answer.status}`;
  try {
    ({code, detail} = (await answer.json()).error);
  } catch { /* no JSON: the status says all there is */ }
  throw new Refusal(code, detail);
}

export async function askJson(path, options) {
  return (await ask(path, options)).json();
}

export async function askBytes(path, options) {
  return (await ask(path, options)).arrayBuffer();
}

export async function askBlob(path, options) {
  const answer = await ask(path, options);
  const name = /filename="([^"]*)"/.exec(answer.headers.get("content-disposition") ?? "");
  return {blob: await answer.blob(), name: name ? name[1] : "file"};
}

export function sendFile(file) {
  return askJson("/api/images", {
    method: "POST",
    body: file,
    headers: {"X-Name": encodeURIComponent(file.name), "Content-Type": "application/octet-stream"},
  });
}

export function imagePath(key, what, query = {}) {
  const text = new URLSearchParams(query).toString();
  return `/api/images/${key}/${what}${text ? `?${text}` : ""}`;
}

export function save(blob, name) {
  const address = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}
