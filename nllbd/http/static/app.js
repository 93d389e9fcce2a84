// The page at `/`: a client of POST /translate like any other. No framework, nothing loaded from elsewhere.
// `/?source=en&target=fr&text=Hello` opens it with a text and translates that.
"use strict";

const LIVE_DELAY_MS = 400;
const element = (id) => document.getElementById(id);
const [source, target, text, output, problem, status, live, key] = [
  "source", "target", "text", "output", "problem", "status", "live", "key",
].map(element);

let running = null; // AbortController of the request under way
let timer = null;

function show(message) {
  problem.textContent = message;
  problem.hidden = !message;
}

function headers() {
  const sent = { "Content-Type": "application/json" };
  if (key.value) sent["X-API-Key"] = key.value;
  return sent;
}

function describe(answer) {
  const item = answer.translations[0];
  const parts = [`${Math.round(answer.duration_ms)} ms`];
  if (source.value === "auto" && item.source_lang) {
    const known = [...source.options].find((option) => option.dataset.flores === item.source_lang);
    const sure = item.detected_confidence === null ? "" : ` (${Math.round(item.detected_confidence * 100)} %)`;
    parts.unshift(`${known ? known.textContent : item.source_lang}${sure}`);
  }
  return parts.concat(item.warnings.map((warning) => warning.replaceAll("_", " "))).join(" · ");
}

async function translate() {
  clearTimeout(timer);
  if (running) running.abort();
  show("");
  if (!text.value.trim()) {
    output.textContent = "";
    status.textContent = "";
    output.classList.remove("busy");
    return;
  }
  const mine = new AbortController();
  running = mine;
  output.classList.add("busy");
  status.textContent = "Translating…";
  try {
    const answer = await fetch("translate", {
      method: "POST",
      headers: headers(),
      body: JSON.stringify({ text: text.value, source_lang: source.value, target_lang: target.value }),
      signal: mine.signal,
    });
    const body = await answer.json();
    if (answer.status === 401) element("key-field").hidden = false;
    if (!answer.ok) throw new Error(body.error.message);
    output.textContent = body.translated_text;
    status.textContent = describe(body);
  } catch (error) {
    if (error.name === "AbortError") return;
    status.textContent = "";
    show(error instanceof TypeError ? "The server cannot be reached." : error.message);
  } finally {
    if (running === mine) {
      running = null;
      output.classList.remove("busy");
    }
  }
}

function count() {
  element("count").textContent = `${[...text.value].length} characters`;
}

function later() {
  count();
  clearTimeout(timer);
  if (live.checked) timer = setTimeout(translate, LIVE_DELAY_MS);
}

function swap() {
  if (source.value === "auto") return;
  [source.value, target.value] = [target.value, source.value];
  if (output.textContent) text.value = output.textContent;
  remember();
  translate();
}

function remember() {
  localStorage.setItem("nllbd", JSON.stringify({ source: source.value, target: target.value }));
}

function restore(languages) {
  const saved = JSON.parse(localStorage.getItem("nllbd") || "{}");
  const codes = languages.map((language) => language.code);
  const own = navigator.language.split("-")[0];
  target.value = codes.includes(saved.target) ? saved.target : codes.includes(own) ? own : codes[0];
  if (codes.includes(saved.source)) source.value = saved.source;
}

// What the page's address asks for; its languages win over the remembered ones.
function follow(link, languages) {
  const codes = languages.map((language) => language.code);
  const [from, to] = [link.get("source"), link.get("target")];
  if (from === "auto" || codes.includes(from)) source.value = from;
  if (codes.includes(to)) target.value = to;
  if (!link.get("text")) return;
  text.value = link.get("text");
  count();
  translate();
}

function introduce(version) {
  const isDemo = version.model === "demo";
  element("demo").hidden = !isDemo;
  element("limit").textContent = `A text may have up to ${version.max_request_size.toLocaleString("en")} characters.`;
  const model = isDemo ? "demonstration model" : version.model;
  element("about").textContent = [model, version.device, version.dtype, `v${version.version}`].filter(Boolean).join(" · ");
}

async function start() {
  try {
    const [languages, version] = await Promise.all(
      ["languages", "version"].map(async (path) => {
        const answer = await fetch(path);
        if (!answer.ok) throw new Error((await answer.json()).error.message);
        return answer.json();
      }),
    );
    languages.sort((a, b) => a.name.localeCompare(b.name));
    for (const language of languages) {
      for (const list of [source, target]) {
        const option = new Option(language.name, language.code);
        option.dataset.flores = language.flores;
        list.add(option);
      }
    }
    restore(languages);
    introduce(version);
    follow(new URLSearchParams(location.search), languages);
  } catch (error) {
    show(error instanceof TypeError ? "The server cannot be reached." : `${error.message} Reload the page in a moment.`);
  }
}

element("form").addEventListener("submit", (event) => {
  event.preventDefault();
  translate();
});
text.addEventListener("input", later);
text.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) translate();
});
for (const list of [source, target]) {
  list.addEventListener("change", () => {
    remember();
    translate();
  });
}
element("swap").addEventListener("click", swap);
element("clear").addEventListener("click", () => {
  text.value = "";
  text.focus();
  later();
  translate();
});
element("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText(output.textContent);
  status.textContent = "Copied";
});
start();
