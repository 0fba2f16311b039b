"use strict";
const at = (id) => document.getElementById(id);
const files = new Map();  // files that were searched, by number, for Back
let samples = [];
let shown = null;         // the question whose answers are shown
let matches = [];
let turn = 0;             // a late answer to an older question is dropped
let limit = 32e6;
let again = null;

// What the page says.

function say(text, bad, retry) {
  at("status").textContent = text;
  at("status").classList.toggle("bad", Boolean(bad));
  again = retry ?? null;
  at("retry").hidden = !retry;
}

function make(tag, name, text) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
}

function title(item) {
  return item.label ?? item.name;
}

async function get(url, options) {
  let response, answer;
  try {
    response = await fetch(url, options);
    answer = await response.json();
  } catch {
    const error = new Error("The server does not answer. Is “tf-detreg serve” still running?");
    error.lost = true;
    throw error;
  }
  if (!response.ok) throw new Error(answer.error ?? `The server answered with the code ${response.status}.`);
  return answer;
}

// A question is {kind: "start"}, {kind: "item", item, title} or {kind: "file", file}; `detail` is the item in view.

function same(one, other) {
  return one && other && one.kind === other.kind && one.item === other.item && one.file === other.file;
}

function address(question) {
  const parts = [];
  if (question.kind === "item") parts.push("like=" + question.item);
  if (question.detail !== undefined) parts.push("show=" + question.detail);
  return parts.length ? "#" + parts.join("&") : location.pathname + location.search;
}

function fromAddress() {
  const words = new URLSearchParams(location.hash.slice(1));
  const number = (name) => (/^\d{1,12}$/.test(words.get(name) ?? "") ? Number(words.get(name)) : undefined);
  const question = number("like") === undefined ? { kind: "start" } : { kind: "item", item: number("like") };
  if (number("show") !== undefined) question.detail = number("show");
  return question;
}

async function ask(question) {
  const k = "?k=" + at("count").value;
  if (question.kind === "item") return get("neighbors/" + question.item + k);
  const headers = { "Content-Type": "application/octet-stream" };
  return get("search" + k, { method: "POST", body: files.get(question.file), headers });
}

// Shows a question's answers; an answer that fails leaves all as it was. Whether it could be shown.
async function visit(question, push) {
  const mine = ++turn;
  if (question.kind === "start") {
    showStart();
  } else {
    document.body.classList.add("busy");
    say("Searching…");
    try {
      const answer = await ask(question);
      if (mine !== turn) return false;
      showAnswer(question, answer);
    } catch (error) {
      if (mine === turn) {
        const name = question.kind === "file" ? files.get(question.file).name : "";
        say((name ? name + ": " : "") + error.message, true, error.lost ? () => visit(question, push) : null);
      }
      return false;
    } finally {
      if (mine === turn) document.body.classList.remove("busy");
    }
  }
  shown = question;
  if (push) history.pushState(question, "", address(question));
  return true;
}

function showStart() {
  document.body.classList.remove("busy");
  say("");
  matches = [];
  at("query").hidden = true;
  at("ask").classList.remove("asked");
  at("show").hidden = at("meaning").hidden = true;
  at("heading").textContent = samples.length ? "Or start from one of these" : "";
  list(samples, sampleCard);
}

function showAnswer(question, answer) {
  matches = answer.matches;
  if (question.kind === "item") {
    question.title = title(answer.item);
    showQuery("pictures/" + question.item, question.title);
  } else {
    const file = files.get(question.file);
    file.address ??= URL.createObjectURL(file);
    showQuery(file.address, file.name || "pasted picture");
  }
  const nothing = matches.length > 0 && matches.every((match) => match.accepted === false);
  at("heading").textContent = nothing ? "Not in the catalog" : "Most similar pictures";
  at("show").hidden = at("meaning").hidden = false;
  list(matches, matchCard);
  const below = nothing ? " None of them is similar enough to count as a match." : "";
  say(`${matches.length} nearest of the gallery, in ${answer.milliseconds} ms.${below}`);
}

function showQuery(source, caption) {
  at("picture").onload = (event) => event.target.classList.toggle("tiny", event.target.naturalWidth < 64);
  at("picture").src = source;
  at("caption").textContent = at("caption").title = caption;
  at("query").hidden = false;
  at("ask").classList.add("asked");
}

function list(items, card) {
  at("results").replaceChildren(...items.map((item, row) => {
    const entry = make("li");
    entry.append(...card(item, row));
    return entry;
  }));
}

function thumbnail(item) {
  if (item.picture === false) return make("span", "none", "no picture");
  const image = make("img");
  image.src = "thumbnails/" + item.item;
  image.alt = "";
  image.loading = "lazy";
  return image;
}

function sampleCard(item) {
  const button = make("button", "item");
  button.type = "button";
  button.append(thumbnail(item), make("span", "title", title(item)));
  button.setAttribute("aria-label", `Search for pictures like item ${item.item}, ${title(item)}`);
  button.addEventListener("click", () => like(item.item));
  return [button];
}

function matchCard(match, row) {
  const button = make("button", "item");
  button.type = "button";
  button.append(thumbnail(match), make("span", "name", title(match)));
  if (match.label !== null) button.append(make("span", "id", match.name));
  const score = make("span", "score");
  const track = make("span", "track");
  const fill = make("i");
  fill.style.width = 100 * Math.max(0, Math.min(1, match.score)) + "%";
  track.append(fill);
  score.append(track, match.score.toFixed(3));
  button.append(score);
  let decided = "";
  if (match.accepted !== undefined) {
    const percent = Math.round(100 * match.probability) + " %";
    score.append(make("span", "probability", percent));
    decided = match.accepted ? `, a match with probability ${percent}` : ", no match";
    button.classList.toggle("below", !match.accepted);
  }
  button.setAttribute("aria-label", `${title(match)}, similarity ${match.score.toFixed(3)}${decided}. Show it.`);
  button.addEventListener("click", () => open(row));
  const more = make("button", "like");
  more.type = "button";
  more.title = "Search for more like this";
  more.setAttribute("aria-label", `Search for more like ${title(match)}, result ${row + 1}`);
  const glass = at("glass").cloneNode(true);
  glass.removeAttribute("id");
  glass.removeAttribute("class");
  more.append(glass);
  more.addEventListener("click", () => like(match.item));
  return [button, more];
}

// One item in full.

function open(row) {
  const question = { ...shown, detail: matches[row].item };
  history.pushState(question, "", address(question));
  showDetail(question.detail);
}

async function showDetail(item) {
  const row = matches.findIndex((match) => match.item === item);
  at("detail").dataset.item = item;
  at("detail-facts").replaceChildren();
  at("detail-path").hidden = true;
  at("detail-title").textContent = row < 0 ? "" : title(matches[row]);
  at("detail-picture").hidden = false;
  at("detail-none").hidden = true;
  at("detail-picture").src = "pictures/" + item;
  at("previous").disabled = row <= 0;
  at("next").disabled = row < 0 || row === matches.length - 1;
  if (!at("detail").open) at("detail").showModal();
  try {
    const facts = await get("items/" + item);
    if (Number(at("detail").dataset.item) === item) showFacts(facts, row < 0 ? undefined : matches[row]);
  } catch (error) {
    at("detail-title").textContent = error.message;
  }
}

function showFacts(facts, match) {
  const rows = [];
  if (match !== undefined) rows.push(["Similarity", match.score.toFixed(4)]);
  if (match?.accepted !== undefined) {
    rows.push(["Match", `${match.accepted ? "yes" : "no"}, probability ${Math.round(100 * match.probability)} %`]);
  }
  if (facts.label !== null) rows.push(["Label", facts.label], ["File", facts.name]);
  if (facts.path === null || facts.id !== facts.path) rows.push(["Id", String(facts.id)]);
  rows.push(...Object.entries(facts.metadata));
  at("detail-title").textContent = title(facts);
  at("detail-picture").alt = title(facts);
  at("detail-facts").replaceChildren(...rows.flatMap(([name, text]) => [make("dt", "", name), make("dd", "", text)]));
  at("detail-path").hidden = facts.path === null;
  at("path").value = facts.path ?? "";
  at("path").scrollLeft = at("path").scrollWidth;  // its end says most
  at("copy").textContent = "Copy";
}

function step(by) {
  const row = matches.findIndex((match) => match.item === Number(at("detail").dataset.item)) + by;
  if (!matches[row]) return;
  const question = { ...shown, detail: matches[row].item };
  history.replaceState(question, "", address(question));
  showDetail(question.detail);
}

async function copy() {
  at("path").select();
  try {
    await navigator.clipboard.writeText(at("path").value);
  } catch {  // not allowed, as on a page that came over a network without TLS
    document.execCommand("copy");
  }
  at("copy").textContent = "Copied";
}

at("detail-picture").addEventListener("load", (event) => event.target.classList.toggle("tiny", event.target.naturalWidth < 500));
at("detail-picture").addEventListener("error", () => {
  at("detail-picture").hidden = true;
  at("detail-none").hidden = false;
  at("detail-none").textContent = "The picture cannot be read. Its file may have moved.";
});
at("detail").addEventListener("close", () => { if (history.state?.detail !== undefined) history.back(); });
at("detail").addEventListener("click", (event) => { if (event.target === at("detail")) at("detail").close(); });
at("detail").addEventListener("keydown", (event) => {
  if (event.target === at("path")) return;
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
at("previous").addEventListener("click", () => step(-1));
at("next").addEventListener("click", () => step(1));
at("close").addEventListener("click", () => at("detail").close());
at("copy").addEventListener("click", copy);
at("more").addEventListener("click", () => {
  const item = Number(at("detail").dataset.item);
  window.addEventListener("popstate", () => like(item), { once: true });  // closing goes back to the results
  at("detail").close();
});

// Ways to ask.

async function like(item) {
  const done = await visit({ kind: "item", item }, true);
  if (done) {
    window.scrollTo({ top: 0 });
    at("file").focus({ preventScroll: true });
  }
  return done;
}

function search(file) {
  if (file.size > limit) {
    say(`${file.name} has ${(file.size / 1e6).toFixed(1)} MB; at most ${(limit / 1e6).toFixed(0)} MB are taken.`, true);
    return;
  }
  files.set(files.size, file);
  visit({ kind: "file", file: files.size - 1 }, true);
}

function take(given) {
  const all = [...given];
  at("others").hidden = all.length < 2;
  at("others").replaceChildren("Also given:", ...all.slice(1, 25).map((file) => {
    const button = make("button", "plain", file.name);
    button.type = "button";
    button.title = file.name;
    button.addEventListener("click", () => search(file));
    return button;
  }));
  if (all.length > 25) at("others").append(`and ${all.length - 25} more`);
  search(all[0]);
}

// What was dropped or pasted without a file.
function explain(data, verb) {
  const text = (data.getData("text/uri-list") || data.getData("text/plain")).trim();
  const own = text.startsWith(location.origin) && text.match(/\/(?:thumbnails|pictures)\/(\d{1,12})$/);
  if (own) like(Number(own[1]));
  else if (/^(https?|ftp|file):/i.test(text)) say(`An address was ${verb}, not a picture. This page loads nothing from addresses: save the picture, then drop its file here.`, true);
  else if (text) say(`Text was ${verb}, not a picture. Copy a picture itself, or choose its file.`, true);
  else say(`What was ${verb} holds no picture. Choose a file.`, true);
}

at("file").addEventListener("change", (event) => {
  if (event.target.files.length) take(event.target.files);
  event.target.value = "";
});
at("count").addEventListener("change", () => shown && visit(shown, false));
at("retry").addEventListener("click", () => again?.());
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => { event.preventDefault(); at("drop").classList.add("over"); });
}
for (const kind of ["dragleave", "drop"]) {
  document.addEventListener(kind, (event) => { event.preventDefault(); at("drop").classList.remove("over"); });
}
document.addEventListener("drop", (event) => {
  if (event.dataTransfer.files.length) take(event.dataTransfer.files);
  else explain(event.dataTransfer, "dropped");
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) take(event.clipboardData.files);
  else explain(event.clipboardData, "pasted");
});

async function restore(question) {
  if (question.detail === undefined && at("detail").open) at("detail").close();
  if (question.kind === "file" && !files.has(question.file)) question = { kind: "start" };  // after a reload
  const { detail, ...rest } = question;
  if (!same(rest, shown) && !(await visit(rest, false))) return;
  if (detail !== undefined) showDetail(detail);
}

window.addEventListener("popstate", (event) => restore(event.state ?? fromAddress()));

// The question in the address, over an entry for Back where an item is in view.
function first() {
  const question = fromAddress();
  const { detail, ...rest } = question;
  history.replaceState(rest, "", address(rest));
  if (detail !== undefined) history.pushState(question, "", address(question));
  return question;
}

async function begin() {
  try {
    const about = await get("about");
    limit = about.max_body;
    samples = about.samples;
    document.title = `Search · ${about.model}`;
    const version = `${about.model}, version ${about.version}`;
    at("about").textContent = about.items ? `${about.items.toLocaleString("en")} pictures · ${version}` : version;
    await restore(history.state ?? first());
    if (!about.items) {
      say("This server has no gallery yet. Start it with an index: tf-detreg serve MODEL --index FOLDER", true);
    }
  } catch (error) {
    say(error.message, true, begin);
  }
}

begin();
