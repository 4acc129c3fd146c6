"use strict";
/* What all pages share: their record, and how its texts come onto the page. */

const record = JSON.parse(document.getElementById("record").textContent);
const ARRAYS = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, f4: Float32Array };
const at = (id) => document.getElementById(id);

function unpack([type, base64]) {
  return new ARRAYS[type](Uint8Array.from(atob(base64), (char) => char.charCodeAt(0)).buffer);
}

/** An element with its text, which is never parsed: a token or a caption may be any. */
function element(name, className = "", text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

/** What produced the numbers, behind a summary. */
function buildManifest(summary, { notes, ...groups }) {
  document.querySelector("footer summary").textContent = summary;
  if (notes.length) at("manifest").append(element("h3", "", "notes"), ...notes.map((note) => element("p", "", note)));
  for (const [name, values] of Object.entries(groups)) {
    const list = element("dl");
    for (const [key, value] of Object.entries(values))
      list.append(element("dt", "", key), element("dd", "", value ?? "unknown"));
    at("manifest").append(element("h3", "", name), list);
  }
}
